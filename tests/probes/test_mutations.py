"""Thousands of requests, each broken a little: the upstream sees clean ones or none.

The seed is fixed, so a failure can be repeated; the test names the mutation.
`LLMPROXY_MUTATIONS=10000` runs the full number.
"""

import asyncio
import os
import random

from kit.client import Ended, Malformed, RawClient, Silent
from kit.gateway import settings
from kit.judge import verdict_on
from kit.upstream import replies
from kit.wire import answer, chunked, get, lines, post, sse_head

NUMBER = int(os.environ.get("LLMPROXY_MUTATIONS", "1000"))
SEED = 20_260_101
AT_ONCE = 48

JSON = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}'
CHUNKED = lines("POST /v1/chat/completions HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")

SEEDS = [
    get(b"/v1/models?a=b&c=%2f"),
    get(b"/v1/x", b"Accept: */*", b"Connection: keep-alive", b"User-Agent: probe"),
    post(body=JSON),
    post(b"/v1/completions", JSON, b"Authorization: Bearer sk-x", b"Accept-Encoding: gzip"),
    post(b"/v1/x", b"0123456789", b"Connection: close"),
    CHUNKED + chunked(JSON[:20], JSON[20:]),
    CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    lines("POST /v1/x HTTP/1.1", "Host: h", "Content-Length: 5", "Expect: 100-continue") + b"hello",
    lines("OPTIONS /v1/x HTTP/1.1", "Host: h:80"),
    lines("DELETE http://h/v1/x HTTP/1.1", "Host: h"),
    lines("POST /v1/x HTTP/1.0", "Content-Length: 5") + b"hello",
    post(body=JSON) + get(b"/v1/second"),
]

SPICE = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b";",
    b",",
    b"0",
    b"-1",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: other\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: Content-Length\r\n",
    b" folded\r\n",
    b"chunked",
    b"HTTP/1.0",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"GET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    b"Content-Length",
    b"%00",
    b"ffffffffffffffff",
    b"\xc4\xa0",
    b"Upgrade: h2c\r\n",
    b"/",
    b"..",
    b"?",
    b"#",
    b"@",
    b"\\",
    b"'",
    b'"',
]


def flip(raw, dice):
    at = dice.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << dice.randrange(8))]) + raw[at + 1 :]


def insert(raw, dice):
    at = dice.randrange(len(raw) + 1)
    return raw[:at] + dice.choice(SPICE) + raw[at:]


def delete(raw, dice):
    at = dice.randrange(len(raw))
    return raw[:at] + raw[at + dice.choice((1, 1, 2, 5)) :]


def repeat(raw, dice):
    at = dice.randrange(len(raw))
    piece = raw[at : at + dice.randrange(1, 40)]
    return raw[:at] + piece + raw[at:]


def replace(raw, dice):
    at = dice.randrange(len(raw))
    return raw[:at] + dice.choice(SPICE) + raw[at + dice.randrange(1, 4) :]


def add_line(raw, dice):
    """At the place where it hurts: between two header lines."""
    places = [at + 2 for at in range(len(raw)) if raw[at : at + 2] == b"\r\n"] or [0]
    at = dice.choice(places)
    return raw[:at] + dice.choice([spice for spice in SPICE if spice.endswith(b"\r\n")]) + raw[at:]


def swap_case(raw, dice):
    at = dice.randrange(len(raw))
    return raw[:at] + raw[at : at + 20].swapcase() + raw[at + 20 :]


def break_line_ends(raw, dice):
    return raw.replace(b"\r\n", dice.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")), dice.choice((1, 2, -1)))


def cut(raw, dice):
    return raw[: dice.randrange(1, len(raw) + 1)]


def join(raw, dice):
    return raw + dice.choice(SEEDS)


MUTATORS = [flip, insert, delete, repeat, replace, add_line, add_line, swap_case, break_line_ends, cut, join]


ANSWERS = [
    answer(b'{"choices":[]}', b"X-Custom: 1"),
    answer(b"{}", status=b"503 Busy"),
    sse_head() + chunked(b"data: 1\n\n", b"data: [DONE]\n\n"),
    sse_head(b"Trailer: X-Sum") + chunked(b"data: 1\n\n", trailers=b"X-Sum: 1\r\n"),
    lines("HTTP/1.1 204 No Content", "X-Custom: 1"),
    lines("HTTP/1.0 200 OK", "Content-Type: text/plain") + b"until close",
    lines("HTTP/1.1 103 Early Hints", "Link: </a>") + answer(b"late"),
]


def mutant(number, seeds):
    dice = random.Random(SEED + number)
    raw = dice.choice(seeds)
    for _ in range(dice.choice((1, 1, 2, 3))):
        raw = dice.choice(MUTATORS)(raw, dice) or b"x"
    return raw


async def test_no_mutation_of_a_request_gets_through_unclean(gateways, upstream):
    server = {"read_timeout": "1s", "idle_timeout": "1s", "max_body_size": "1MiB"}
    gateway = gateways.get(settings(gateways.backend_port, server=server))
    upstream.on_request = replies(answer(b"{}"))
    gate = asyncio.Semaphore(AT_ONCE)
    bad = []

    async def one(number):
        raw = mutant(number, SEEDS)
        async with gate:
            try:
                verdict = await verdict_on(gateway.port, raw, half_close=True)
            except Exception as failure:
                bad.append((number, raw, repr(failure)))
                return
        wrong = [status for status in verdict.statuses if status >= 500 and status != 505]
        incomplete = [response.end for response in verdict.answers if not response.is_complete]
        if wrong or incomplete or verdict.ending == "open":
            bad.append((number, raw, (wrong, incomplete, verdict.ending)))

    await asyncio.gather(*(one(number) for number in range(NUMBER)))

    assert bad == []
    assert upstream.unclean == []
    assert upstream.unfinished == []
    assert len(upstream.requests) > NUMBER / 20
    assert gateway.new_alarms() == []


async def test_no_mutation_of_an_answer_gets_through_malformed(gateways, upstream):
    """What a client gets can be read in one way only, and the answer behind it is the right one."""
    timeouts = {"first_byte": "1s", "idle": "1s"}
    gateway = gateways.get(
        settings(gateways.backend_port, routing={"timeouts": timeouts, "breaker": {"enabled": False}})
    )
    gate = asyncio.Semaphore(AT_ONCE)
    bad = []

    async def mutated(connection, request):
        number = int(request.target.rsplit(b"/", 1)[1])
        if request.target.startswith(b"/v1/mutant/"):
            connection.write(mutant(number, ANSWERS))
            if number % 2:
                connection.close()
        else:
            connection.write(answer(b"right-%d" % number))

    upstream.on_request = mutated

    async def one(number):
        async with gate, await RawClient.connect(gateway.port) as client:
            try:
                response = await client.ask(post(b"/v1/mutant/%d" % number, JSON), 5)
                if response.is_complete and response.framing != "close":
                    following = await client.ask(post(b"/v1/right/%d" % number, JSON), 5)
                    # A kept connection may die under a POST: a 502 is right, a wrong answer never.
                    if following.status != 502 and following.body != b"right-%d" % number:
                        bad.append((number, following))
                elif response.end == "silent":
                    bad.append((number, "silent"))
            except Ended:
                pass
            except (Malformed, Silent) as failure:
                bad.append((number, repr(failure)))

    await asyncio.gather(*(one(number) for number in range(NUMBER)))

    assert bad == []
    assert gateway.new_alarms() == []
