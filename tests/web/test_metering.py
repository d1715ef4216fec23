"""What every shape of answer used arrives in a record, whole, compressed, cut or left."""

import gzip
import json
import zlib
from contextlib import AsyncExitStack

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.receiver import Receiver
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, get, post, sse_head

CHAT = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
SEVEN_THREE = (7, 3)


def event(**fields):
    return (
        b"data: " + json.dumps({"id": "c-1", "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"
    )


def text(content="word ", finish=None, **fields):
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}], **fields)


DONE = b"data: [DONE]\n\n"
EXTRA = event(choices=[], usage=USAGE)
WORDS = text() * 3
GROWING = b"".join(
    text(usage={"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n}) for n in (1, 2, 3)
)
STREAMS = {
    "an extra chunk": WORDS + text("", "stop") + EXTRA + DONE,
    "the finish chunk": WORDS + text("", "stop", usage=USAGE),
    "every chunk": GROWING + text("", "stop") + EXTRA + DONE,
    "timings": WORDS + text("", "stop", timings={"cache_n": 2, "prompt_n": 5, "predicted_n": 3}) + DONE,
    "finish and usage in one piece": WORDS + text("", "stop", usage=None) + EXTRA,
    "the Responses API": b"event: response.completed\ndata: "
    + json.dumps(
        {
            "type": "response.completed",
            "response": {"id": "r", "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}},
        }
    ).encode()
    + b"\n\n",
    "Anthropic's": b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":'
    b'{"input_tokens":7,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":3}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
    "TGI's details": b'data:{"token":{"text":"lo"},"generated_text":"lo","details":'
    b'{"finish_reason":"length","generated_tokens":3,"input_length":7}}\n\n',
}


@pytest.fixture
async def stack():
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def metered(stack, new_gateway):
    """A gateway, its upstream and where its records go."""
    upstream = await stack.enter_async_context(ScriptedUpstream())
    receiver = await stack.enter_async_context(Receiver())
    webhook = {"name": "w", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/", "timeout": "5s"}
    gateway = new_gateway(
        settings(
            upstream.port,
            usage={"enabled": True, "reporters": [webhook]},
            models=[{"id": "m"}, {"id": "asks", "ask_usage": True}],
        )
    )
    return gateway, upstream, receiver


def used(record):
    usage = record.get("usage")
    return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


def in_pieces(head, body, size):
    return head + chunked(*(body[at : at + size] for at in range(0, len(body), size)))


def flushed(pieces):
    """A gzip'd stream of which each event can be read when it has come."""
    packer = zlib.compressobj(wbits=31)
    return [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces], packer


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_usage_is_found_wherever_a_stream_says_it(metered, coding):
    gateway, upstream, receiver = metered
    extra = [b"Content-Encoding: gzip"] if coding == "gzip" else []
    bodies = [gzip.compress(body) if coding == "gzip" else body for body in STREAMS.values()]

    for number, body in enumerate(bodies, 1):
        upstream.on_request = replies(in_pieces(sse_head(*extra), body, 13))
        assert (await ask(gateway.port, post(body=CHAT))).body == body
        await receiver.wait_records(number)

    found = {name: used(record) for name, record in zip(STREAMS, receiver.records, strict=True)}
    assert found == dict.fromkeys(STREAMS, SEVEN_THREE)
    assert {record["estimated"] for record in receiver.records} == {False}
    assert {record["outcome"] for record in receiver.records} == {"complete"}


async def test_usage_is_found_in_whole_answers_and_in_heads(metered):
    gateway, upstream, receiver = metered
    body = json.dumps({"choices": [], "usage": USAGE}).encode()
    tgi = (b"x-prompt-tokens: 7", b"x-generated-tokens: 3")
    answers = [
        answer(body),
        answer(gzip.compress(body), b"Content-Encoding: gzip"),
        answer(zlib.compress(body), b"Content-Encoding: deflate"),
        answer(b'{"generated_text": "lo"}', *tgi),
    ]

    for number, each in enumerate(answers, 1):
        upstream.on_request = replies(each)
        assert (await ask(gateway.port, post(body=CHAT))).status == 200
        await receiver.wait_records(number)

    assert [used(record) for record in receiver.records] == [SEVEN_THREE] * 4
    assert not any(record["estimated"] or record["incomplete"] for record in receiver.records)


async def test_an_answer_whose_id_is_no_text_is_passed_on_and_billed(metered):
    gateway, upstream, receiver = metered
    body = json.dumps({"id": "?", "choices": [], "usage": USAGE}).encode().replace(b"?", b"\xff")
    upstream.on_request = replies(answer(body))

    async with await RawClient.connect(gateway.port) as client:
        for _ in range(2):  # on the same connection
            assert (await client.ask(post(body=CHAT))).body == body

    records = await receiver.wait_records(2)
    assert [(record["outcome"], record["estimated"]) for record in records] == [("complete", True)] * 2


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_what_says_nothing_is_counted_and_flagged(metered, coding):
    gateway, upstream, receiver = metered
    body, extra = WORDS + text("", "stop") + DONE, []
    if coding == "gzip":
        body, extra = gzip.compress(body), [b"Content-Encoding: gzip"]
    upstream.on_request = replies(sse_head(*extra) + chunked(body))

    await ask(gateway.port, post(body=CHAT))

    (record,) = await receiver.wait_records(1)
    assert (record["estimated"], record["outcome"]) == (True, "complete")
    assert used(record) == (-(-len(CHAT) // 4), 3)


@pytest.mark.parametrize("who", ["client", "upstream"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("model", ["m", "asks"])
async def test_an_aborted_stream_is_billed_for_what_was_relayed(metered, who, coding, model):
    gateway, upstream, receiver = metered
    pieces, extra = [text()] * 5, []
    if coding == "gzip":
        (pieces, packer), extra = flushed(pieces), [b"Content-Encoding: gzip"]
        assert packer.flush()

    async def script(connection, request):
        connection.write(sse_head(*extra) + b"".join(map(chunk, pieces)))
        if who == "upstream":
            connection.reset()
        else:
            await connection.stall()

    upstream.on_request = script
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=CHAT.replace(b'"m"', b'"%b"' % model.encode())))
        await eventually(lambda: pieces[-1] in client.received, "all that was sent has come")
        if who == "upstream":
            await client.wait_end()

    (record,) = await receiver.wait_records(1)
    assert record["outcome"] == ("client_closed" if who == "client" else "upstream_cut")
    assert (record["estimated"], record["incomplete"], record["status_code"]) == (True, True, 200)
    prompt, completion = used(record)
    assert completion == 5
    assert abs(prompt - len(upstream.requests[0].body) // 4) <= 1


async def test_the_growing_usage_of_a_stream_that_was_left_is_the_last_that_was_relayed(metered):
    gateway, upstream, receiver = metered

    async def script(connection, request):
        connection.write(sse_head() + chunk(GROWING))
        await connection.stall()

    upstream.on_request = script
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=CHAT))
        await client.read_until(b'"total_tokens": 10}')

    (record,) = await receiver.wait_records(1)
    assert used(record) == SEVEN_THREE
    assert (record["estimated"], record["outcome"]) == (False, "client_closed")


async def test_usage_that_was_asked_for_is_billed_and_not_seen(metered):
    gateway, upstream, receiver = metered
    upstream.on_request = replies(in_pieces(sse_head(), STREAMS["an extra chunk"], 17))

    response = await ask(gateway.port, post(body=CHAT.replace(b'"m"', b'"asks"')))

    assert response.body == STREAMS["an extra chunk"].replace(EXTRA, b"")
    assert json.loads(upstream.requests[0].body)["stream_options"] == {"include_usage": True}
    (record,) = await receiver.wait_records(1)
    assert (used(record), record["estimated"]) == (SEVEN_THREE, False)


async def test_a_request_that_was_tried_twice_is_billed_once(stack, new_gateway):
    async def dies(connection, request):
        connection.write(sse_head())
        connection.reset()

    bad = await stack.enter_async_context(ScriptedUpstream(dies))
    good = await stack.enter_async_context(
        ScriptedUpstream(replies(sse_head() + chunked(STREAMS["an extra chunk"])))
    )
    receiver = await stack.enter_async_context(Receiver())
    webhook = {"name": "w", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}
    retry = {"enabled": True, "retry_on": ["no_answer"], "budget": 1.0}
    in_turn = {"load_balance": "round_robin", "affinity": {"enabled": False}, "breaker": {"enabled": False}}
    gateway = new_gateway(
        settings(
            bad.port,
            good.port,
            usage={"enabled": True, "reporters": [webhook]},
            routing={**in_turn, "retry": retry},
        )
    )

    for _ in range(2):
        assert (await ask(gateway.port, post(body=CHAT))).status == 200

    records = await receiver.wait_records(2)
    assert [used(record) for record in records] == [SEVEN_THREE] * 2
    assert sorted(record["attempts"] for record in records) == [1, 2]
    assert {record["backend"] for record in records} == {"backend-1"}


async def test_tool_calls_are_counted_by_model_whoever_found_them(stack, new_gateway):
    upstream = await stack.enter_async_context(ScriptedUpstream())
    receiver = await stack.enter_async_context(Receiver())
    webhook = {"name": "w", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}
    text_calls = {"kind": "tool_calls", "format": "hermes"}
    gateway = new_gateway(
        settings(
            upstream.port,
            usage={"enabled": True, "reporters": [webhook]},
            models=[{"id": "m"}, {"id": "writes", "adapters": [text_calls]}],
        )
    )
    calls = [
        {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for at in (0, 1)
    ]
    native = event(choices=[{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}])
    written = text('<tool_call>{"name": "f", "arguments": {}}</tool_call>') + text("", "stop")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    asked = {**json.loads(CHAT), "tools": tools}

    for number, (model, body) in enumerate([("m", native), ("writes", written), ("m", native)], 1):
        upstream.on_request = replies(sse_head() + chunked(body + DONE))
        await ask(gateway.port, post(body=json.dumps({**asked, "model": model}).encode()))
        await receiver.wait_records(number)

    page = (await ask(gateway.port, get(b"/metrics"))).body
    assert [record["tool_calls"] for record in receiver.records] == [2, 1, 2]
    assert b'llmproxy_model_tool_calls_total{kind="m"} 4.0' in page
    assert b'llmproxy_model_tool_calls_total{kind="writes"} 1.0' in page
