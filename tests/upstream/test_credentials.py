"""Keys that rotate and tokens that renew themselves, against a real token endpoint."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from proxy.upstream.ask import NoAnswer
from proxy.upstream.credentials import MIN_LIFE_SECONDS, Tokens, TokenSettings, read_grant
from proxy.upstream.endpoint import Changes, Endpoint, EndpointSpec, Vitals
from proxy.upstream.fetch import Fetcher
from proxy.upstream.token_file import BadTokenFile, StoredToken, read_token, write_token
from proxy.wire.http1 import parse_request_head

SPEC = EndpointSpec("e", "http", "127.0.0.1", 8001, headers=((b"X-A", b"1"), (b"authorization", b"Bearer x")))


class Wires:
    def __init__(self, endpoint: Endpoint) -> None:
        pass

    def close(self) -> None:
        pass


def endpoint(**spec: object) -> Endpoint:
    fields = {name: getattr(SPEC, name) for name in ("name", "scheme", "host", "port", "headers")}
    return Endpoint(EndpointSpec(**(fields | spec)), Vitals(Changes()), Wires)


def sent(one: Endpoint) -> bytes:
    """The head that a request to it has."""
    head = parse_request_head(b"GET /v1/models HTTP/1.1\r\nHost: us\r\nAuthorization: Bearer client\r\n\r\n")
    return one.rewrite.head(head, body_length=0)


# -- keys -------------------------------------------------------------------


def test_the_first_of_several_keys_stands_in_for_any_other_credential() -> None:
    one = endpoint(keys=(b"k1", b"k2"))

    assert sent(one).count(b"uthorization") == 1
    assert b"\r\nAuthorization: Bearer k1\r\n" in sent(one)
    assert b"\r\nX-A: 1\r\n" in sent(one)
    assert one.headers == ((b"X-A", b"1"), (b"Authorization", b"Bearer k1"))


def test_a_refused_key_gives_way_and_checks_use_the_new_one_too() -> None:
    one = endpoint(keys=(b"k1", b"k2"))
    first = one.rewrite

    assert one.key_refused(first, 429, None, 0.0)

    assert b"Bearer k2\r\n" in sent(one)
    assert one.headers[-1] == (b"Authorization", b"Bearer k2")
    assert one.key_refused(first, 429, None, 0.0)
    assert b"Bearer k2\r\n" in sent(one)


def test_when_every_key_was_refused_the_answer_stands() -> None:
    one = endpoint(keys=(b"k1", b"k2"))
    one.key_refused(one.rewrite, 401, None, 0.0)

    assert not one.key_refused(one.rewrite, 401, None, 1.0)


def test_a_key_that_works_again_is_not_held_to_its_past() -> None:
    one = endpoint(keys=(b"k1",))
    for now in (0.0, 10.0):
        one.key_refused(one.rewrite, 429, None, now)

    one.key_worked(one.rewrite)
    one.key_refused(one.rewrite, 429, None, 100.0)

    assert one.key_refused(one.rewrite, 429, None, 105.0) is False
    assert one._ring is not None and one._ring._keys[0].refusals == 2


def test_a_single_fixed_key_never_gives_way() -> None:
    one = endpoint()

    assert not one.key_refused(one.rewrite, 401, None, 0.0)
    one.key_worked(one.rewrite)
    assert b"Bearer x\r\n" in sent(one)


def test_an_endpoint_gets_nothing_before_its_token_is_there() -> None:
    one = endpoint(awaits_token=True)
    changes = one.vitals.changes.count

    assert not one.admits(0.0) and not one.is_up
    one.use_token(b"t1")

    assert one.admits(0.0) and one.is_up
    assert one.vitals.changes.count > changes
    assert b"Bearer t1\r\n" in sent(one)


def test_keys_are_not_in_what_is_printed() -> None:
    assert "canary" not in repr(endpoint(keys=(b"canary",), headers=((b"a", b"canary"),)).spec)


# -- the file ---------------------------------------------------------------


def token_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_may_hold_the_token_alone(tmp_path: Path) -> None:
    assert read_token(token_file(tmp_path / "t", "rt-1\n")).refresh_token == "rt-1"


def test_a_file_may_be_json_whose_other_members_stay(tmp_path: Path) -> None:
    path = token_file(tmp_path / "t", '{"refresh_token": "rt-1", "resource_url": "portal", "expires_at": 7}')

    stored = read_token(path)
    write_token(path, StoredToken("rt-2", "at", 99.5, stored.members))

    assert (stored.refresh_token, stored.access_token, stored.expires_at) == ("rt-1", "", 7.0)
    assert json.loads(path.read_text()) == {
        "refresh_token": "rt-2",
        "resource_url": "portal",
        "access_token": "at",
        "expires_at": 99.5,
    }


def test_what_is_written_only_its_owner_reads_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "t"
    before = os.umask(0)
    try:
        write_token(path, StoredToken("rt"))
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_a_write_that_was_cut_short_does_not_keep_the_next_one_from_happening(tmp_path: Path) -> None:
    (tmp_path / ".t.new").write_text("half")

    write_token(tmp_path / "t", StoredToken("rt"))

    assert read_token(tmp_path / "t").refresh_token == "rt"


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("rt", 0o640, "0600"),
        ("rt", 0o604, "0600"),
        ("", 0o600, "no token"),
        ("a b\x00", 0o600, "no token"),
        ("{broken", 0o600, "JSON"),
        ("{}", 0o600, "no token"),
        ('{"refresh_token": 5}', 0o600, "no token"),
        ("x" * 70_000, 0o600, "too large"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, mode: int, why: str) -> None:
    with pytest.raises(BadTokenFile, match=why):
        read_token(token_file(tmp_path / "t", text, mode))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadTokenFile, match="No such file"):
        read_token(tmp_path / "none")


# -- refreshing -------------------------------------------------------------


class Provider:
    """A token endpoint. Each grant has a number; `life` and `rotates` say what it hands out."""

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, str]] = []
        self.life: object = 3600
        self.rotates = False
        self.status = 200

    async def grant(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        number = len(self.forms)
        if self.status != 200:
            return web.json_response({"error": "invalid_grant"}, status=self.status)
        answer = {"access_token": f"at-{number}", "token_type": "Bearer", "expires_in": self.life}
        return web.json_response(answer | ({"refresh_token": f"rt-{number + 1}"} if self.rotates else {}))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_post("/token", made.grant)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield made
    await runner.cleanup()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher()
    yield made
    await made.close()


@pytest.fixture
async def tokens(fetcher: Fetcher) -> AsyncIterator[Tokens]:
    made = Tokens(fetcher, time.time, lambda: 0.0)
    yield made
    await made.close()


def settings(provider: Provider, path: Path, **more: object) -> TokenSettings:
    return TokenSettings(provider.url, "cid", str(path), **more)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


async def test_a_token_is_fetched_handed_out_and_kept(
    provider: Provider, tokens: Tokens, tmp_path: Path
) -> None:
    one, other = endpoint(awaits_token=True), endpoint(awaits_token=True)
    its = settings(provider, token_file(tmp_path / "t", "rt-1"), client_secret="s", scope="chat")

    tokens.watch({one: its, other: its})
    await until(lambda: one.is_up and other.is_up)
    await until(lambda: read_token(tmp_path / "t").access_token == "at-1")

    assert provider.forms == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "rt-1",
            "client_id": "cid",
            "client_secret": "s",
            "scope": "chat",
        }
    ]
    assert b"Bearer at-1\r\n" in sent(one)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600


async def test_a_token_of_the_last_run_is_used_while_it_lives(
    provider: Provider, tokens: Tokens, tmp_path: Path
) -> None:
    kept = {"refresh_token": "rt", "access_token": "at-old", "expires_at": time.time() + 3600}
    one = endpoint(awaits_token=True)

    tokens.watch({one: settings(provider, token_file(tmp_path / "t", json.dumps(kept)))})
    await until(lambda: one.is_up)

    assert b"Bearer at-old\r\n" in sent(one)
    assert provider.forms == []


async def test_a_token_is_renewed_before_its_end(provider: Provider, tokens: Tokens, tmp_path: Path) -> None:
    kept = {"refresh_token": "rt", "access_token": "at-old", "expires_at": time.time() + 0.4}
    one = endpoint(awaits_token=True)

    tokens.watch({one: settings(provider, token_file(tmp_path / "t", json.dumps(kept)))})
    await until(lambda: one.is_up)
    began = time.time()
    await until(lambda: b"Bearer at-1\r\n" in sent(one))

    assert time.time() - began < 0.4


async def test_a_new_refresh_token_replaces_the_old_one(
    provider: Provider, fetcher: Fetcher, tmp_path: Path
) -> None:
    provider.rotates = True
    path = token_file(tmp_path / "t", "rt-1")

    for number in (1, 2):
        tokens = Tokens(fetcher, time.time, lambda: 0.0)
        one = endpoint(awaits_token=True)
        tokens.watch({one: settings(provider, path)})
        await until(lambda: read_token(path).refresh_token == f"rt-{number + 1}")  # noqa: B023
        await tokens.close()
        token_file(path, read_token(path).refresh_token)  # forget the access token

    assert [form["refresh_token"] for form in provider.forms] == ["rt-1", "rt-2"]


async def test_a_new_refresh_token_that_cannot_be_written_is_not_lost(
    provider: Provider, tokens: Tokens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider.rotates = True
    its = settings(provider, token_file(tmp_path / "t", "rt-1"))
    (tmp_path / ".t.new").mkdir()
    one = endpoint(awaits_token=True)
    tokens.watch({one: its})
    await until(lambda: len(caplog.records) > 0)

    await tokens._refreshers[its]._refresh()
    (tmp_path / ".t.new").rmdir()
    await tokens._refreshers[its]._refresh()

    assert {record.message for record in caplog.records} == {"refresh token not written back"}
    assert [form["refresh_token"] for form in provider.forms] == ["rt-1", "rt-2", "rt-3"]
    assert read_token(tmp_path / "t").refresh_token == "rt-4"


async def test_a_token_somebody_puts_there_counts(provider: Provider, tokens: Tokens, tmp_path: Path) -> None:
    provider.rotates = True
    its = settings(provider, token_file(tmp_path / "t", "rt-1"))
    (tmp_path / ".t.new").mkdir()
    one = endpoint(awaits_token=True)
    tokens.watch({one: its})
    await until(lambda: one.is_up)
    await asyncio.sleep(0)

    token_file(tmp_path / "t", "rt-by-hand")
    await tokens._refreshers[its]._refresh()

    assert [form["refresh_token"] for form in provider.forms] == ["rt-1", "rt-by-hand"]


async def test_a_refused_refresh_is_tried_again_later_and_the_old_token_stays(
    provider: Provider, tokens: Tokens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"refresh_token": "rt", "access_token": "at-old", "expires_at": time.time() + 0.1}
    provider.status = 400
    one = endpoint(awaits_token=True)

    tokens.watch({one: settings(provider, token_file(tmp_path / "t", json.dumps(kept)))})
    await until(lambda: len(caplog.records) > 0)

    record = caplog.records[0]
    assert (record.message, record.why) == ("access token not refreshed", "status 400, invalid_grant")
    assert b"Bearer at-old\r\n" in sent(one)


async def test_a_file_others_may_read_is_not_used(
    provider: Provider, tokens: Tokens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = endpoint(awaits_token=True)

    tokens.watch({one: settings(provider, token_file(tmp_path / "t", "rt-canary", 0o644))})
    await until(lambda: len(caplog.records) > 0)

    assert provider.forms == []
    assert not one.is_up
    assert "canary" not in str([vars(record) for record in caplog.records])


async def test_a_new_generations_endpoint_gets_the_token_at_once(
    provider: Provider, tokens: Tokens, tmp_path: Path
) -> None:
    old, new = endpoint(awaits_token=True), endpoint(awaits_token=True)
    its = settings(provider, token_file(tmp_path / "t", "rt-1"))
    tokens.watch({old: its})
    await until(lambda: old.is_up)

    tokens.watch({new: its})

    assert new.is_up
    assert len(provider.forms) == 1


async def test_nothing_is_refreshed_for_nobody(provider: Provider, tokens: Tokens, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    one = endpoint(awaits_token=True)
    tokens.watch({one: settings(provider, token_file(tmp_path / "t", "rt-1"))})
    await until(lambda: one.is_up)

    tokens.watch({})
    await until(lambda: asyncio.all_tasks() == before)

    assert len(provider.forms) == 1


@pytest.mark.parametrize(
    ("answer", "grant"),
    [
        ({"access_token": "a", "expires_in": 60, "refresh_token": "r"}, ("a", 60.0, "r")),
        ({"access_token": "a", "expires_in": "60"}, ("a", 60.0, "")),
        ({"access_token": "a"}, ("a", 3600.0, "")),
        ({"access_token": "a", "expires_in": "soon"}, ("a", 3600.0, "")),
        ({"access_token": "a", "expires_in": "nan"}, ("a", 3600.0, "")),
        ({"access_token": "a", "expires_in": "1e999"}, ("a", 3600.0, "")),
        ({"access_token": "a", "expires_in": -5}, ("a", MIN_LIFE_SECONDS, "")),
    ],
)
def test_reads_grants(answer: object, grant: tuple[str, float, str]) -> None:
    assert read_grant(answer) == grant


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": "a\r\nb"},
        {"access_token": "ä"},
    ],
)
def test_what_is_no_grant_is_refused(answer: object) -> None:
    with pytest.raises(NoAnswer):
        read_grant(answer)
