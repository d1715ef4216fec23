"""The administration API over real sockets: who is let in, what every call answers, and what never leaks."""

import json
from contextlib import asynccontextmanager
from hashlib import sha256

import aiohttp
import pytest
from aiohttp import web

from proxy.access import digest, networks
from proxy.errors import BodyTooLarge
from proxy.stores.key_database import KeyDatabase
from proxy.stores.new_key import PREFIX
from proxy.web.admin import MAX_BODY_BYTES, AdminPages

NOW = 1_773_576_000.0  # 2026-03-15T12:00:00Z
TOKEN = "token-0123456789-canary"
KEY = "sk-client-canary-1"
HEX = sha256(KEY.encode()).hexdigest()
AUTH = {"X-Admin-Token": TOKEN}


class Api:
    """A running API and a client for it."""

    def __init__(self, session, url, database, audited):
        self.session = session
        self.url = url
        self.database = database
        self.audited = audited

    async def raw(self, action, body=None, *, method="POST", headers=AUTH):
        async with self.session.request(
            method, f"{self.url}/admin/keys/{action}", data=body, headers=headers
        ) as response:
            return response.status, dict(response.headers), await response.json()

    async def call(self, action, **request):
        status, _, envelope = await self.raw(action, json.dumps(request))
        return status, envelope

    async def done(self, action, **request):
        status, envelope = await self.call(action, **request)
        assert (status, envelope["success"]) == (200, True), envelope
        return envelope["data"]


@asynccontextmanager
async def running(tmp_path, allowed=(), *, read_only=False, **options):
    audited = []
    database = KeyDatabase(tmp_path / "keys.db", audited.append)
    numbers = iter(range(1, 1000))
    pages = AdminPages(
        database,
        digest(TOKEN.encode()),
        networks(allowed),
        read_only=read_only,
        wall=lambda: NOW,
        random=lambda count: next(numbers).to_bytes(count),
        **options,
    )
    app = web.Application()
    app.add_routes(pages.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Api(session, f"http://127.0.0.1:{runner.addresses[0][1]}", database, audited)
    await runner.cleanup()
    await database.close()


@pytest.fixture
async def api(tmp_path):
    async with running(tmp_path) as api:
        yield api


# -- who is let in ------------------------------------------------------------------------

LET_IN = [
    {"X-Admin-Token": TOKEN},
    {"x-admin-token": f" {TOKEN} "},
    {"Authorization": f"Bearer {TOKEN}"},
    {"Authorization": f"bearer   {TOKEN}"},
    {"X-Admin-Token": TOKEN, "Authorization": "Bearer wrong"},
]


@pytest.mark.parametrize("headers", LET_IN)
async def test_the_token_lets_in(api, headers):
    assert (await api.raw("list", headers=headers))[0] == 200


MISSING = [
    {},
    {"X-Admin-Token": ""},
    {"Authorization": TOKEN},
    {"Authorization": "Basic dG9rZW4="},
    {"X-API-Key": TOKEN},
]


@pytest.mark.parametrize("headers", MISSING)
async def test_without_a_token_there_is_401(api, headers):
    status, answer_headers, envelope = await api.raw("list", headers=headers)

    assert (status, envelope["success"], envelope["error"]) == (401, False, "token_missing")
    assert answer_headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "token", ["wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), sha256(TOKEN.encode()).hexdigest()]
)
async def test_with_a_wrong_token_there_is_403(api, token):
    status, _, envelope = await api.raw("list", headers={"X-Admin-Token": token})

    assert (status, envelope["error"]) == (403, "token_wrong")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_get_405(api, method):
    status, headers, envelope = await api.raw("list", method=method)

    assert (status, headers["Allow"], envelope["success"]) == (405, "POST", False)


async def test_only_listed_addresses_are_let_in_token_or_not(tmp_path):
    async with running(tmp_path, ["10.0.0.0/8"]) as api:
        for headers in (AUTH, {}):
            status, _, envelope = await api.raw("list", headers=headers)
            assert (status, envelope["error"]) == (403, "address_not_allowed")


async def test_a_listed_address_is_let_in(tmp_path):
    async with running(tmp_path, ["127.0.0.1", "10.0.0.0/8"]) as api:
        assert (await api.call("list"))[0] == 200


async def test_the_address_is_the_one_the_listener_knows(tmp_path):
    async with running(tmp_path, ["10.0.0.0/8"], client_ip=lambda request: "10.1.2.3") as api:
        assert (await api.call("list"))[0] == 200
    async with running(tmp_path, ["10.0.0.0/8"], client_ip=lambda request: "local") as api:
        assert (await api.call("list"))[0] == 403


CHANGES = ["create", "update", "delete", "rotate", "sync"]


@pytest.mark.parametrize("action", CHANGES)
async def test_read_only_refuses_every_change(tmp_path, action):
    async with running(tmp_path, read_only=True) as api:
        status, envelope = await api.call(action, key=KEY, keys=[])
        assert (status, envelope["error"]) == (403, "read_only")
        assert (await api.call("list"))[0] == 200
        assert (await api.call("get", key=KEY))[0] == 404
        assert (await api.call("audit"))[0] == 200


# -- the calls -------------------------------------------------------------------------------


async def test_a_key_that_is_made_here_is_shown_once(api):
    made = await api.done("create", name="alice")

    assert made["key"].startswith(PREFIX)
    assert made["key_id"] == sha256(made["key"].encode()).hexdigest()[:8]
    found = await api.done("get", key=made["key"])
    assert found == {name: value for name, value in made.items() if name != "key"}
    assert "key" not in (await api.done("list"))["keys"][0]


async def test_a_key_of_ones_own_is_taken_and_not_repeated(api):
    made = await api.done(
        "create", key=KEY, name="alice", user_id="u1", status=1, expires_at="2027-01-01T00:00:00Z"
    )

    assert "key" not in made
    assert (made["key_id"], made["status"], made["expires_at"]) == (
        HEX[:8],
        "disabled",
        "2027-01-01T00:00:00Z",
    )


async def test_a_key_may_be_given_as_a_digest(api):
    await api.done("create", sha256=HEX.upper(), name="alice")

    assert (await api.done("get", key=KEY))["name"] == "alice"
    assert (await api.done("get", sha256=HEX))["name"] == "alice"
    assert (await api.done("get", key_id=HEX[:8]))["name"] == "alice"


async def test_a_key_that_is_there_gets_409(api):
    await api.done("create", key=KEY)

    status, envelope = await api.call("create", key=KEY)

    assert (status, envelope["error"]) == (409, "exists")


async def test_an_update_sets_and_clears(api):
    await api.done("create", key=KEY, name="alice", expires_at="2027-01-01T00:00:00Z")

    found = await api.done("update", key=KEY, status="disabled", expires_at="", total_quota=5)

    assert (found["name"], found["status"], found["expires_at"], found["total_quota"]) == (
        "alice", "disabled", None, 5,
    )  # fmt: skip


async def test_what_is_deleted_is_gone(api):
    await api.done("create", key=KEY)

    assert await api.done("delete", key=KEY) == {"key_id": HEX[:8]}
    assert (await api.call("get", key=KEY))[0] == 404


@pytest.mark.parametrize("action", ["get", "update", "delete", "rotate"])
@pytest.mark.parametrize("name", [{"key": "sk-nobody"}, {"sha256": "ab" * 32}, {"key_id": "00000000"}])
async def test_a_key_that_is_not_there_gets_404(api, action, name):
    status, envelope = await api.call(action, **name)

    assert (status, envelope["error"]) == (404, "not_found")


async def test_an_exchanged_key_is_valid_beside_the_old_one_for_a_while(api):
    await api.done("create", key=KEY, name="alice")

    made = await api.done("rotate", key=KEY, keep="1h")

    assert (await api.done("get", key=made["key"]))["key_id"] == HEX[:8]
    assert [found["expires_at"] for found in made["digests"]] == [None, "2026-03-15T13:00:00Z"]


async def test_a_list_has_pages(api):
    for number in range(25):
        await api.done("create", key=f"sk-{number}", name=f"n{number}")

    page, rest = await api.done("list"), await api.done("list", offset=20, limit=1000)

    assert (len(page["keys"]), page["total"], page["limit"]) == (20, 25, 20)
    assert page["keys"][0]["name"] == "n24"
    assert (len(rest["keys"]), rest["limit"]) == (5, 100)


async def test_a_synchronisation_says_what_it_did(api):
    await api.done("create", key="sk-old")
    keys = [{"key": KEY, "name": "alice"}, {"sha256": "cd" * 32, "name": "bob"}]

    assert await api.done("sync", keys=keys) == {"created": 2, "updated": 0, "deleted": 0, "unchanged": 0}
    assert await api.done("sync", keys=keys, mode="full") == {
        "created": 0, "updated": 0, "deleted": 1, "unchanged": 2,
    }  # fmt: skip


async def test_a_synchronisation_with_a_fault_changes_nothing_and_names_every_fault(api):
    keys = [{"key": KEY}, {"key": "with space"}, {"sha256": "cd" * 32, "status": "gone"}, "sk-text"]

    status, envelope = await api.call("sync", keys=keys, mode="full")

    assert (status, envelope["error"]) == (400, "invalid_request")
    assert all(f"keys[{index}]" in envelope["message"] for index in (1, 2, 3))
    assert (await api.done("list"))["total"] == 0


async def test_every_change_is_in_the_history_with_the_tokens_id(api):
    await api.done("create", key=KEY, name="alice")
    await api.done("update", key=KEY, name="bob")

    history = (await api.done("audit", limit=10))["changes"]

    assert [(entry["action"], entry["changes"]) for entry in history] == [
        ("update", {"name": ["alice", "bob"]}),
        ("create", {"name": "alice"}),
    ]
    assert {entry["who"] for entry in history} == {f"admin:{sha256(TOKEN.encode()).hexdigest()[:8]}"}
    assert [entry["action"] for entry in api.audited] == ["create", "update"]


async def test_no_answer_and_no_record_holds_a_key_or_a_token(api, tmp_path, caplog):
    caplog.set_level("DEBUG")
    await api.done("create", key=KEY, name="alice")
    await api.done("update", key=KEY, name="bob")
    answers = [
        await api.call(action, key=KEY, keys=[{"key": KEY, "colour": 1}])
        for action in ("get", "create", "sync")
    ]
    made = (await api.done("rotate", key=KEY))["key"]
    answers += [await api.call("list"), await api.call("audit"), await api.call("delete", key=made)]

    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for text in (KEY, TOKEN, made, HEX):
        assert text not in f"{answers}{api.audited}{caplog.text}"
        assert text.encode() not in written


# -- what cannot be understood ---------------------------------------------------------------

BAD = [
    ("create", b"{"),
    ("create", b"[]"),
    ("create", b'"sk-1"'),
    ("create", b"\xff"),
    ("create", b'{"name": 5}'),
    ("create", b'{"key": ""}'),
    ("create", b'{"key": 5}'),
    ("create", b'{"key": "a b"}'),
    ("create", b'{"key": "a", "sha256": "b"}'),
    ("create", b'{"sha256": "12ab"}'),
    ("create", b'{"key_id": "12345678"}'),
    ("create", b'{"colour": "red"}'),
    ("get", b""),
    ("get", b"{}"),
    ("get", b'{"key_id": 5}'),
    ("get", b'{"key_id": "12345678", "key": 5}'),
    ("list", b'{"limit": 0}'),
    ("list", b'{"offset": -1}'),
    ("list", b'{"offset": true}'),
    ("list", b'{"limit": "5"}'),
    ("sync", b"{}"),
    ("sync", b'{"keys": {}}'),
    ("sync", b'{"keys": [], "mode": "half"}'),
    ("audit", b'{"limit": 1.5}'),
]


@pytest.mark.parametrize(("action", "body"), BAD)
async def test_what_cannot_be_understood_gets_400(api, action, body):
    status, _, envelope = await api.raw(action, body)

    assert (status, envelope["success"], envelope["error"]) == (400, False, "invalid_request")


async def test_a_bad_span_is_refused(api):
    await api.done("create", key=KEY)

    for keep in ("soon", -5, [], {}):
        assert (await api.call("rotate", key=KEY, keep=keep))[0] == 400


async def test_a_body_without_end_is_refused(api):
    async def endless():
        for _ in range(MAX_BODY_BYTES // 2**20 + 4):
            yield b" " * 2**20

    status, _, envelope = await api.raw("sync", endless())

    assert (status, envelope["error"]) == (413, BodyTooLarge.code)


async def test_a_database_that_cannot_be_used_is_503_with_a_time_to_wait(tmp_path):
    (tmp_path / "keys.db").mkdir()
    async with running(tmp_path) as api:
        status, headers, envelope = await api.raw("list")

    assert (status, envelope["error"], headers["Retry-After"]) == (503, "unavailable", "5")
    assert str(tmp_path) not in envelope["message"]
