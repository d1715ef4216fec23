"""Key files: what they may hold, who may read them, and what is said when they are wrong."""

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from proxy.access import KeyLimits, Quota, digest, networks
from proxy.config import ConfigError
from proxy.stores.key_file import MAX_FILE_BYTES, read_key_file

CANARY = "sk-canary-8f1d2c3b4a59687f"
HEX = sha256(b"sk-alice").hexdigest()
NEXT = sha256(b"sk-alice-2").hexdigest()

FULL = f"""\
keys:
  - sha256: {HEX}
    next_sha256: {NEXT.upper()}
    name: alice
    user_id: u1
    status: active
    starts_at: 2026-01-01T00:00:00Z
    expires_at: 2027-01-01T00:00:00Z
    allowed_models: [qwen*, gpt-4o]
    allowed_ips: [10.0.0.0/8]
    denied_ips: [10.9.9.9]
    limits: {{requests_per_second: 5, max_concurrent: 2}}
    labels: {{team: red}}
    total_quota: 1000
    used_quota: 10
    quota_unit: requests
    quota_reset_period: monthly
    balance: 2.5
"""


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600, name="keys.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def notes():
    return []


@pytest.fixture
def read(notes):
    return lambda path, environ=None: read_key_file(path, environ or {}, name="file", note=notes.append)


def test_an_entry_may_say_all_that_a_key_carries(write, read, notes):
    found = read(write(FULL)).find(digest(b"sk-alice"))

    assert (found.key_id, found.name, found.user_id) == (HEX[:8], "alice", "u1")
    assert (found.starts_at, found.expires_at) == (1767225600.0, 1798761600.0)
    assert found.allowed_models == ("qwen*", "gpt-4o")
    assert found.allowed_ips == networks(["10.0.0.0/8"])
    assert found.denied_ips == networks(["10.9.9.9"])
    assert found.limits == KeyLimits(requests_per_second=5, max_concurrent=2)
    assert found.labels == {"team": "red"}
    assert found.quota == Quota(1000, 10, "requests", "monthly")
    assert (found.balance, found.source) == (2.5, "file")
    assert notes == []


def test_two_digests_stand_for_one_key(write, read):
    table = read(write(FULL))

    first, second = table.find(digest(b"sk-alice")), table.find(digest(b"sk-alice-2"))
    assert second == replace(first, digest=digest(b"sk-alice-2"))
    assert second.key_id == HEX[:8]


@pytest.mark.parametrize("wrap", [lambda keys: keys, lambda keys: {"keys": keys}])
def test_json_and_a_bare_list_are_read_too(write, read, wrap):
    path = write(json.dumps(wrap([{"sha256": HEX, "name": "alice"}, {"key": "sk-bob", "status": 1}])))

    table = read(path)

    assert len(table) == 2
    assert table.find(digest(b"sk-bob")).status == "disabled"


def test_a_key_in_plain_text_is_noted_by_its_place_and_never_shown(write, read, notes):
    table = read(write(f"keys: [{{key: {CANARY}, name: alice}}]"))

    assert table.find(digest(CANARY.encode())).name == "alice"
    assert len(notes) == 1
    assert "keys[0]" in notes[0]
    assert CANARY not in notes[0]
    assert CANARY not in repr(table.find(digest(CANARY.encode())))


def test_an_unknown_key_is_none(write, read):
    assert read(write(FULL)).find(digest(b"sk-mallory")) is None
    assert len(read(write("keys: []"))) == 0


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_touch_is_refused_with_its_mode(write, read, mode):
    path = write(FULL, mode)

    with pytest.raises(ConfigError) as raised:
        read(path)

    assert f"{mode:04o}" in str(raised.value)
    assert f"chmod 600 {path}" in str(raised.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(write, read, mode):
    assert len(read(write(FULL, mode))) == 2


def test_a_credential_from_systemd_may_show_a_mode_for_the_group(write, read, tmp_path):
    path = write(FULL, 0o440)

    assert len(read(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})) == 2
    with pytest.raises(ConfigError):
        read(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "elsewhere")})


def test_every_mistake_is_named_at_once_with_its_line(write, read):
    path = write(
        "keys:\n"
        "  - sha256: 12ab\n"
        f"  - {{sha256: {HEX}, allowed_ips: [ten]}}\n"
        f"  - key: {CANARY}\n"
        f"    sha256: {NEXT}\n"
        f"  - {{sha256: {NEXT}, status: gone}}\n"
        f"  - {{sha256: {NEXT}, colour: red}}\n"
    )

    with pytest.raises(ConfigError) as raised:
        read(path)

    assert {problem.line for problem in raised.value.problems} >= {2, 3, 4, 6, 7}
    assert CANARY not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_key_stands_in_one_entry_only_in_whatever_form(write, read):
    path = write(
        "keys:\n"
        "  - {key: sk-alice}\n"
        f"  - {{sha256: {NEXT}}}\n"
        f"  - {{sha256: {HEX}}}\n"
        f"  - {{key: sk-carol, next_sha256: {NEXT}}}\n"
    )

    with pytest.raises(ConfigError) as raised:
        read(path)

    assert [problem.line for problem in raised.value.problems] == [4, 5]
    assert "keys[0]" in str(raised.value)


def test_two_keys_with_one_id_are_refused(write, read):
    path = write(f"- sha256: {'ab' * 32}\n- sha256: {'ab' * 31}cd\n")

    with pytest.raises(ConfigError, match="abababab"):
        read(path)


UNREADABLE = [(b"\xff\xfe", "UTF-8"), ("keys: [", "keys.yaml"), ("keys: 5", "keys")]


@pytest.mark.parametrize(("text", "said"), UNREADABLE)
def test_what_cannot_be_read_is_said(write, read, text, said):
    with pytest.raises(ConfigError, match=said):
        read(write(text))


def test_a_missing_file_is_said(read, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nowhere.yaml")


def test_a_file_beyond_all_reason_is_refused_without_being_read_whole(write, read):
    path = write("")
    os.truncate(path, MAX_FILE_BYTES + 1)

    with pytest.raises(ConfigError, match="larger than"):
        read(path)


def test_keys_may_come_from_the_environment_or_another_file(write, read, notes, tmp_path):
    Path(tmp_path / "bob.key").write_text("sk-bob\n")

    table = read(write("keys: [{key: '${ALICE}'}, {key: '${file:bob.key}'}]"), {"ALICE": "sk-alice"})

    assert table.find(digest(b"sk-alice")) is not None
    assert table.find(digest(b"sk-bob")) is not None
    assert notes == []
