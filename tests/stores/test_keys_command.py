"""What the key commands print, and that it works when it is pasted."""

import json
import re
from hashlib import sha256

import pytest

from proxy.access import digest
from proxy.stores.key_editor import NoSuchKey
from proxy.stores.key_fields import BadFields
from proxy.stores.key_file import read_key_file
from proxy.stores.keys_command import call_text, database_table, hash_text, list_text, new_text, request_of
from proxy.stores.new_key import new_key

NOW = 1_770_000_000.0


def zeros(count):
    return bytes(count)


def test_a_new_key_holds_256_random_bits():
    key = new_key(lambda count: bytes(range(count)))

    assert re.fullmatch(r"sk-llmproxy-[A-Za-z0-9_-]{43}", key)
    assert key != new_key(zeros)


def test_the_entry_that_is_printed_with_a_new_key_lets_it_in(tmp_path):
    text = new_text(zeros, name='al"ice\n', user_id="u1")
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + text[text.index("  - sha256") :])
    path.chmod(0o600)

    table = read_key_file(path, {}, name="file", note=print)

    credential = table.find(digest(new_key(zeros).encode()))
    assert text.startswith(new_key(zeros) + "\n")
    assert text.count(new_key(zeros)) == 1
    assert (credential.name, credential.user_id) == ('al"ice\n', "u1")


def test_hash_prints_a_digest_for_each_key():
    first, second = sha256(b"sk-1").hexdigest(), sha256(b"sk-2").hexdigest()

    assert hash_text(["sk-1\n", "", " sk-2 "]) == f"{first}\n{second}\n"


def test_hash_refuses_what_no_header_could_carry_and_does_not_show_it():
    with pytest.raises(ValueError) as raised:
        hash_text(["sk with spaces"])

    assert "sk" not in str(raised.value)


def test_list_shows_each_key_once_and_nothing_to_come_in_with(tmp_path):
    path = tmp_path / "keys.yaml"
    hexes = [sha256(name.encode()).hexdigest() for name in ("one", "two", "three")]
    path.write_text(
        f"- {{sha256: {hexes[0]}, next_sha256: {'ab' * 32}, total_quota: 9, used_quota: 3}}\n"
        f'- {{sha256: {hexes[1]}, expires_at: 2026-01-01, allowed_models: [a, b*], name: "b\\u001b[2J"}}\n'
        f"- {{sha256: {hexes[2]}, starts_at: 2027-01-01, user_id: u3}}\n"
    )
    path.chmod(0o600)

    text = list_text([read_key_file(path, {}, name="file", note=print)], NOW)

    head, *rows = text.splitlines()
    assert head.split() == ["ID", "NAME", "USER", "STATUS", "EXPIRES", "MODELS", "QUOTA"]
    assert [row.split()[0] for row in rows] == [found[:8] for found in hexes]
    assert "3/9 tokens" in rows[0]
    assert "expired" in rows[1] and "a,b*" in rows[1] and "2026-01-01T00:00:00Z" in rows[1]
    assert "b?[2J" in rows[1]
    assert "not started" in rows[2]
    assert not any(found in text for found in hexes)


def test_an_empty_list_is_a_head_alone():
    assert list_text([], NOW).startswith("ID  NAME")


# -- the built-in database ------------------------------------------------------------------


@pytest.fixture
def call(tmp_path):
    def call(action, *words):
        return call_text(
            tmp_path / "keys.db",
            action,
            request_of(words),
            who="cli:root",
            at=NOW,
            random=zeros,
            audited=lambda entry: None,
        )

    return call


def test_a_key_that_is_made_is_printed_first_and_once(call, tmp_path):
    text = call("create", "name=alice", "allowed_models=qwen*,gpt-4o", "total_quota=5")

    key, _, rest = text.partition("\n")
    assert key == new_key(zeros)
    assert key not in rest
    answer = json.loads(rest[rest.index("{") :])
    assert (answer["name"], answer["allowed_models"], answer["total_quota"]) == (
        "alice",
        ["qwen*", "gpt-4o"],
        5,
    )
    assert json.loads(call("get", f"key={key}")) == answer


def test_changes_from_the_command_line_are_in_the_history(call):
    call("create", "sha256=" + "ab" * 32, "name=alice")
    call("update", "key_id=abababab", "name=bob", 'limits={"max_concurrent": 2}', "expires_at=")
    call("delete", "key_id=abababab")

    changes = json.loads(call("audit"))["changes"]

    assert [(change["who"], change["action"]) for change in changes] == [
        ("cli:root", "delete"),
        ("cli:root", "update"),
        ("cli:root", "create"),
    ]
    with pytest.raises(NoSuchKey):
        call("get", "key_id=abababab")


@pytest.mark.parametrize("word", ["name", "total_quota=many", "limits=5x", "labels={a: b}"])
def test_words_that_say_nothing_are_refused(word):
    with pytest.raises(BadFields):
        request_of([word])


def test_names_are_texts_even_where_they_look_like_numbers():
    assert request_of(["name=5", "total_quota=5", "balance=", "keep=24h"]) == {
        "name": "5",
        "total_quota": 5,
        "balance": "",
        "keep": "24h",
    }


def test_keys_of_the_database_are_listed_with_the_others(call, tmp_path):
    call("create", "sha256=" + "ab" * 32, "name=alice", "total_quota=9")
    call("rotate", "key_id=abababab")
    call("create", "sha256=" + "cd" * 32, "name=bob", "expires_at=2026-01-01T00:00:00Z")

    text = list_text([database_table(tmp_path / "keys.db", lambda entry: None)], NOW)

    assert [row.split()[:2] for row in text.splitlines()[1:]] == [["abababab", "alice"], ["cdcdcdcd", "bob"]]
    assert "0/9 tokens" in text
    assert "expired" in text


def test_listing_makes_no_database(tmp_path):
    assert len(database_table(tmp_path / "keys.db", lambda entry: None)) == 0
    assert list(tmp_path.iterdir()) == []
