"""Clients that send the same but for their key share what is worked out of it, and nothing else."""

import json
import random
import signal
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.client import RawClient
from kit.eventually import eventually
from kit.gateway import merged, settings
from kit.upstream import ScriptedUpstream
from kit.wire import post

from proxy.access import digest, key_id, key_in
from proxy.config import parse
from proxy.errors import ProxyError
from proxy.runtime.keys import Keys
from proxy.stores.key_table import KeyTable
from proxy.stores.pipeline import Pipeline
from proxy.web.facts import Facts, repeats_another
from proxy.wire.common_heads import CommonHeads
from proxy.wire.head_memory import HeadMemory
from proxy.wire.http1 import parse_request_head

BODY = b'{"model":"small","messages":[]}'
KEYS = {
    "sk-alice-0000000001": {},
    "sk-bobby-0000000002": {"status": "disabled"},
    "sk-carol-0000000003": {"allowed_models": ["large"]},
    "sk-david-0000000004": {"limits": {"requests_per_minute": 3, "burst_size": 3}},
    "sk-erica-0000000005": {"allowed_ips": ["192.0.2.1"]},
}
UNKNOWN = "sk-nobody-000000006"
EVERYBODY = [*KEYS, UNKNOWN]
ALICE, CAROL = "sk-alice-0000000001", "sk-carol-0000000003"
# of one that asks five times
EXPECTED = dict(
    zip(
        EVERYBODY, ([200] * 5, [403] * 5, [404] * 5, [200] * 3 + [429] * 2, [403] * 5, [401] * 5), strict=True
    )
)
HEADERS = ["Authorization", "X-API-Key", "api-key"]
PREFIXES = {"Authorization": "Bearer ", "X-API-Key": "", "api-key": ""}


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def guarded(port, **changes):
    keys = [{"key": key, "name": key[3:8], **rest} for key, rest in KEYS.items()]
    base = settings(
        port,
        auth={"enabled": True, "header_names": HEADERS, "pipeline": [{"type": "static", "keys": keys}]},
        models=[{"id": name, "pool": "default"} for name in ("small", "large")],
        logging={"access": {"enabled": True, "format": "json"}},
    )
    return merged(base, changes)


def chat(name, key):
    return post(b"/v1/chat/completions", BODY, f"{name}: {PREFIXES[name]}{key}".encode())


def own_id(key):
    return key_id(digest(key.encode())) if key in KEYS else None


def access_lines(gateway):
    return [json.loads(line) for line in gateway.log_lines() if '"first_byte_ms"' in line]


@pytest.mark.parametrize("name", HEADERS)
async def test_pipelined_on_one_connection_every_key_is_answered_as_itself(new_gateway, upstream, name):
    gateway = new_gateway(guarded(upstream.port))
    asked = EVERYBODY * 5
    random.Random(name).shuffle(asked)
    got = {key: [] for key in EVERYBODY}

    async with await RawClient.connect(gateway.port) as client:
        client.write(b"".join(chat(name, key) for key in asked))
        for key in asked:
            got[key].append((await client.read_response(b"POST")).status)

    assert got == EXPECTED
    await eventually(lambda: len(access_lines(gateway)) == len(asked), "a line for each request")
    assert [line["key"] for line in access_lines(gateway)] == [
        own_id_of_line(key, status) for key, status in in_order(asked)
    ]
    assert len({request.head.raw for request in upstream.requests}) == 1
    assert not any(key in gateway.output for key in EVERYBODY)


def in_order(asked):
    left = {key: iter(statuses) for key, statuses in EXPECTED.items()}
    return [(key, next(left[key])) for key in asked]


def own_id_of_line(key, status):
    """Who is refused by the key is nobody; the model's and the limit's refusals know whose it is."""
    return None if status in (401, 403) else own_id(key)


async def test_on_many_connections_at_once_every_key_is_answered_as_itself(new_gateway, upstream):
    gateway = new_gateway(guarded(upstream.port))
    clients = [await RawClient.connect(gateway.port) for _ in EVERYBODY]
    got = {key: [] for key in EVERYBODY}

    for turn in range(5):
        for client, key in zip(clients, EVERYBODY, strict=True):
            client.write(chat(HEADERS[turn % 3], key))
        for client, key in zip(clients, EVERYBODY, strict=True):
            got[key].append((await client.read_response(b"POST")).status)

    for client in clients:
        client.transport.abort()
    assert got == EXPECTED


async def test_of_two_keys_in_one_head_the_configured_order_decides(new_gateway, upstream):
    gateway = new_gateway(guarded(upstream.port))
    asked = [(first, second) for first in EVERYBODY[:3] for second in EVERYBODY[:3]] * 3
    got = []

    async with await RawClient.connect(gateway.port) as client:
        for first, second in asked:
            lines = [f"x-api-key: {second}".encode(), f"authorization: bearer {first}".encode()]
            got.append((await client.ask(post(b"/v1/chat/completions", BODY, *lines))).status)

    assert got == [EXPECTED[first][0] for first, _ in asked]


async def test_after_a_reload_a_head_that_was_known_is_judged_anew(new_gateway, upstream):
    gateway = new_gateway(guarded(upstream.port))
    async with await RawClient.connect(gateway.port) as client:
        before = [(await client.ask(chat("X-API-Key", key))).status for key in (ALICE, CAROL) * 3]
        keys = [{"key": CAROL}, {"key": ALICE, "status": "disabled"}]
        gateway.write(guarded(upstream.port, auth={"pipeline": [{"type": "static", "keys": keys}]}))
        await reloaded(gateway)
        after = [(await client.ask(chat("X-API-Key", key))).status for key in (ALICE, CAROL) * 3]

    assert (before, after) == ([200, 404] * 3, [403, 200] * 3)


async def reloaded(gateway):
    gateway.signal(signal.SIGHUP)
    await eventually(lambda: "reloaded" in gateway.log, "the reload")


async def test_where_nobody_is_asked_for_a_key_each_clients_own_goes_on(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    asked = EVERYBODY * 3

    async with await RawClient.connect(gateway.port) as client:
        client.write(b"".join(chat("Authorization", key) for key in asked))
        for _ in asked:
            assert (await client.read_response(b"POST")).status == 200

    assert [request.head.get(b"authorization") for request in upstream.requests] == [
        b"Bearer " + key.encode() for key in asked
    ]


# -- odd lines, against the plain parser ------------------------------------------


ODD = [
    "Authorization:  Bearer {}",
    "Authorization: Bearer {} ",
    "Authorization:Bearer {}",
    "Authorization: BEARER {}",
    "authorization: bearer {}",
    "Authorization: Bearer\t{}",
    "Authorization: Basic {}",
    "Authorization: Bearer {},{}",
    "Authorization: {}",
    "Authorization: Bearer",
    "X-API-Key: {}",
    "x-api-key:{}",
    "X-Api-Key: Bearer {}",
    "X-API-Key: ",
    "api-key: {}",
    "Proxy-Authorization: Bearer {}",
    "X-Else: Authorization: Bearer {}",
    "Cookie: key={}",
    "Connection: authorization, x-api-key",
    "X-Request-Id: {}",
    "X-Request-Id: abc",
    "X-Forwarded-For: {}",
    "Origin: {}",
]


async def test_odd_heads_are_answered_as_the_plain_parser_reads_them(new_gateway, upstream):
    gateway = new_gateway(guarded(upstream.port))
    dice = random.Random(6)
    known = {ALICE: 200, CAROL: 404}
    lines = [
        [
            dice.choice(ODD).format(*[dice.choice([ALICE, CAROL, UNKNOWN])] * 2)
            for _ in range(dice.randint(1, 3))
        ]
        for _ in range(150)
    ]
    asked = [post(b"/v1/chat/completions", BODY, *(line.encode() for line in head)) for head in lines * 3]
    dice.shuffle(asked)

    for raw in asked:
        head = parse_request_head(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        key = key_in([(line.name, line.value) for line in head.lines], HEADERS)
        async with await RawClient.connect(gateway.port) as client:
            status = (await client.ask(raw)).status
        assert status == known.get((key or b"").decode(), 401), raw

    assert upstream.requests
    for request in upstream.requests:
        assert not {b"authorization", b"x-api-key", b"api-key"} & set(request.head.names())


# -- everything that is worked out of a head ----------------------------------------


RUNTIME = SimpleNamespace(
    forwards=lambda target: target.startswith(b"/v1/"),
    skips_key=lambda target: target.startswith(b"/v1/open"),
)
NAMES = st.sampled_from(
    [
        tuple(HEADERS),
        ("X-API-Key", "Authorization"),
        ("X-Request-Id",),
        ("Origin",),
        ("X-Forwarded-For", "Authorization"),
    ]
)
LINE = st.builds(
    lambda line, keys: line.format(*keys).encode(),
    st.sampled_from(ODD),
    st.tuples(*[st.sampled_from([ALICE, CAROL, UNKNOWN])] * 2),
)
TARGET = st.sampled_from(
    [b"/v1/models", b"/v1/other/" + ALICE.encode(), b"/v1/open", b"/x/" + CAROL.encode()]
)
RAW = st.builds(
    lambda target, lines: b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: h", *lines, b"", b""]),
    TARGET,
    st.lists(LINE, max_size=3),
)


@pytest.mark.parametrize(
    ("name", "target", "lines"),
    [
        ("Origin", "/v1/models", ["Origin: {}"]),
        ("X-Forwarded-For", "/v1/models", ["X-Forwarded-For: {}", "X-Forwarded-For: 192.0.2.1"]),
        ("X-Request-Id", "/v1/models", ["X-Request-Id: {}"]),
        ("Authorization", "/v1/models", ["Authorization: Bearer {}", "X-Request-Id: key-of-alice"]),
        ("Authorization", "/v1/other/key-of-alice/x", ["Authorization: Bearer {}"]),
        ("X-API-Key", "/v1/models", ["X-API-Key: {}", "Authorization: Bearer key-of-alice"]),
    ],
)
def test_what_depends_on_the_key_is_each_clients_own(name, target, lines):
    heads = CommonHeads([name.lower().encode()])
    for key in ["key-of-alice", "key-of-carol"] * 3:
        head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *lines, "", ""]).format(key).encode()
        plain = parse_request_head(head)

        shared = heads.read(head)

        assert shared.common is not None
        assert Facts.of(shared, RUNTIME) == Facts.of(plain, RUNTIME)
        for given_id in (b"key-of-alice", b"key-of-carol", b"Bearer"):
            assert repeats_another(shared, given_id) == repeats_another(plain, given_id)


@given(NAMES, st.lists(RAW, min_size=1, max_size=4), st.integers(1, 3))
def test_what_is_worked_out_of_a_shared_head_is_what_the_head_alone_says(names, raws, times):
    keys = keys_in(names)
    heads = HeadMemory(CommonHeads([name.lower().encode() for name in names]).read, 4000)
    for raw in raws * times:
        for one in (raw, with_keys_exchanged(raw)):
            assert worked_out(keys, heads.read(one)) == worked_out(keys, parse_request_head(one)), one


class Known:
    """A source that has all keys in memory."""

    name = "known"

    def __init__(self, keys):
        self.find_nowait = KeyTable.of(self.name, keys).find


@cache
def keys_in(names):
    source = {"type": "static", "keys": [{"key": key, **rest} for key, rest in KEYS.items()]}
    auth = {"header_names": names, "pipeline": [source]}
    text = json.dumps({"auth": auth, "backends": [{"url": "http://127.0.0.1:1"}]})
    config = parse(text, {}, read_file=lambda name: "")
    return Keys(config, Pipeline([Known(config.auth.pipeline[0].keys)]))


def with_keys_exchanged(raw):
    return (
        raw.replace(ALICE.encode(), b"\0")
        .replace(CAROL.encode(), ALICE.encode())
        .replace(b"\0", CAROL.encode())
    )


def worked_out(keys, head):
    try:
        credential = keys.credential_nowait(head, "127.0.0.1")
    except ProxyError as error:
        credential = str(error)
    ids = [ALICE.encode(), b"Bearer", b"abc", b"nobody"]
    return Facts.of(head, RUNTIME), credential, [repeats_another(head, given) for given in ids]
