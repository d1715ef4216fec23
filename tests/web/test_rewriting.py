"""Adapters, hidden usage and comments, through a running gateway."""

import asyncio
import json

import pytest
from kit.client import RawClient, ask
from kit.gateway import settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, post, sse_head

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "write",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "mode": {"type": "integer"}},
            },
        },
    }
]
CALL = (
    "On it.\n<tool_call>\n<function=write>\n<parameter=path>\na </b> &amp;\n</parameter>\n"
    "<parameter=mode>\n7\n</parameter>\n</function>\n</tool_call>"
)


def delta(text=None, finish=None, **fields):
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": finish}
    whole = {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **fields,
    }
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def stream(text, size=3):
    pieces = [delta(text[at : at + size]) for at in range(0, len(text), size)]
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    return [*pieces, delta(finish="stop"), delta(choices=[], usage=usage), b"data: [DONE]\n\n"]


def events(body):
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    return [json.loads(line) for line in lines]


def request(**fields):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def adapted(upstream, *adapters, **model):
    return settings(upstream.port, models=[{"id": "m", "adapters": list(adapters), **model}])


TOOL_CALLS = {"kind": "tool_calls", "format": "qwen3_xml"}


async def test_a_call_written_as_text_arrives_as_a_call(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    upstream.on_request = replies(sse_head() + chunked(*stream(CALL)))

    response = await ask(gateway.port, post(body=request(tools=TOOLS, stream=True)))

    deltas = [choice["delta"] for event in events(response.body) for choice in event["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    finishes = [c["finish_reason"] for e in events(response.body) for c in e["choices"] if c["finish_reason"]]
    assert calls[0]["function"]["name"] == "write"
    assert json.loads(arguments) == {"path": "a </b> &amp;", "mode": 7}
    assert "".join(delta.get("content") or "" for delta in deltas).strip() == "On it."
    assert finishes == ["tool_calls"]
    assert response.is_complete
    assert response.head.all(b"x-accel-buffering") == [b"no"]
    sent = json.loads(upstream.requests[0].body)
    assert (sent["tool_choice"], sent["tools"]) == ("none", TOOLS)
    assert upstream.requests[0].head.all(b"accept-encoding") == [b"identity"]


async def test_a_whole_answer_is_translated_alike(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    message = {"role": "assistant", "content": CALL}
    whole = {
        "id": "c-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    upstream.on_request = replies(answer(json.dumps(whole).encode()))

    response = await ask(gateway.port, post(body=request(tools=TOOLS)))

    choice = json.loads(response.body)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {
        "path": "a </b> &amp;",
        "mode": 7,
    }
    assert int(response.get(b"content-length")) == len(response.body)


async def test_a_request_without_tools_keeps_its_bytes_and_so_does_its_answer(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    raw = chunked(*stream(CALL))
    upstream.on_request = replies(sse_head(b"X-Odd: 1") + raw)
    body = b'{ "model":"m","messages": [{"role":"user","content":"hi"}],"stream":true}'

    response = await ask(gateway.port, post(b"/v1/chat/completions", body, b"Accept-Encoding: gzip, br"))

    assert upstream.requests[0].body == body
    assert upstream.requests[0].head.all(b"accept-encoding") == [b"gzip, br"]
    assert response.body == b"".join(stream(CALL))


async def test_a_translated_stream_that_breaks_says_so_and_does_not_end(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    upstream.on_request = replies(sse_head() + b"".join(map(chunk, stream(CALL)[:20])), "fin")

    response = await ask(gateway.port, post(body=request(tools=TOOLS, stream=True)))

    assert not response.is_complete
    assert events(response.body)[-1]["error"]["type"] == "server_error"
    assert b"[DONE]" not in response.body


async def test_an_error_answer_passes_through_an_adapter_unchanged(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    upstream.on_request = replies(answer(b'{"error": "no"}', status=b"400 Bad Request"))

    response = await ask(gateway.port, post(body=request(tools=TOOLS, stream=True)))

    assert (response.status, response.body) == (400, b'{"error": "no"}')


async def test_a_body_that_is_no_json_is_refused_where_it_would_be_rewritten(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))

    response = await ask(gateway.port, post(body=b'{"model":"m", "tools": [}'))

    assert response.status == 400
    assert upstream.requests == []


def nested(levels, text="1"):
    return '{"a":' * levels + text + "}" * levels


def called_with(arguments):
    call = {"id": "c", "type": "function", "function": {"name": "write", "arguments": arguments}}
    return [{"role": "assistant", "tool_calls": [call]}]


DEEP = json.loads(nested(300))
DEEP_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("prompt", {"tools": DEEP_TOOLS}),
        ("template", {"tools": DEEP_TOOLS}),
        ("template", {"tools": TOOLS, "messages": called_with(DEEP)}),
        ("prompt", {"tools": TOOLS, "messages": [{"role": "user", "content": DEEP}]}),
        ("template", {"tools": TOOLS, "messages": [{"role": "user", "content": DEEP}]}),
    ],
)
async def test_what_is_nested_without_end_is_the_clients_mistake(new_gateway, upstream, mode, fields):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS | {"mode": mode, "format": "hermes"}))

    refused = await ask(gateway.port, post(body=request(**fields)))

    assert refused.status == 400
    assert "nested too deeply" in json.loads(refused.body)["error"]["message"]
    assert upstream.requests == []


async def test_arguments_of_a_text_that_is_nested_without_end_are_no_error_of_ours(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS | {"mode": "prompt", "format": "gemma4"}))
    body = request(tools=TOOLS, messages=called_with(nested(600)))

    assert (await ask(gateway.port, post(body=body))).status == 400


async def test_thinking_goes_where_it_is_configured_to_go(new_gateway, upstream):
    gateway = new_gateway(
        adapted(upstream, {"kind": "reasoning", "format": "qwen3", "start_in_reasoning": False})
    )
    upstream.on_request = replies(sse_head() + chunked(*stream("<think>hm, a < b</think>\n\nSo yes.")))

    response = await ask(gateway.port, post(body=request(stream=True)))

    deltas = [choice["delta"] for event in events(response.body) for choice in event["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "hm, a < b"
    assert "".join(delta.get("content") or "" for delta in deltas) == "So yes."


async def test_usage_is_asked_for_and_hidden_again(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port, models=[{"id": "m", "ask_usage": True}]))
    upstream.on_request = replies(sse_head() + chunked(*stream("Hello there.")))

    silent = await ask(gateway.port, post(body=request(stream=True)))
    asking = await ask(gateway.port, post(body=request(stream=True, stream_options={"include_usage": True})))

    assert all(json.loads(r.body)["stream_options"] == {"include_usage": True} for r in upstream.requests)
    without = [event for event in stream("Hello there.") if b'"usage"' not in event]
    assert silent.body == b"".join(without)
    assert asking.body == b"".join(stream("Hello there."))


async def test_a_silent_stream_gets_comments_between_its_events(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port, models=[{"id": "m", "sse_keep_alive": "200ms"}]))
    go_on = asyncio.Event()

    async def script(connection, request):
        connection.write(sse_head() + chunk(delta("one")))
        await go_on.wait()
        connection.write(chunk(delta("two")) + b"0\r\n\r\n")

    upstream.on_request = script
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=request(stream=True)))
        await client.read_until(b": keep-alive\n\n")
        go_on.set()
        await client.read_until(b"0\r\n\r\n")

    received = bytes(client.received)
    assert b"\r\nX-Accel-Buffering: no\r\n" in received
    assert received.index(b"one") < received.index(b": keep-alive") < received.index(b"two")


async def test_no_comment_comes_inside_an_event(new_gateway, upstream):
    """While a stream that is silent between events gets several, one that is silent inside gets none."""
    gateway = new_gateway(settings(upstream.port, models=[{"id": "m", "sse_keep_alive": "100ms"}]))
    go_on = asyncio.Event()
    event = delta("one")

    async def script(connection, request):
        is_cut = b"inside" in request.body
        connection.write(sse_head() + chunk(event[:20] if is_cut else event))
        await go_on.wait()
        connection.write((chunk(event[20:]) if is_cut else b"") + b"0\r\n\r\n")

    upstream.on_request = script
    async with (
        await RawClient.connect(gateway.port) as inside,
        await RawClient.connect(gateway.port) as between,
    ):
        inside.write(post(body=request(stream=True, user="inside")))
        await inside.read_until(event[:20])
        between.write(post(body=request(stream=True, user="between")))
        for _ in range(5):
            await between.read_until(b": keep-alive\n\n")
        go_on.set()
        rest = await inside.read_until(b"0\r\n\r\n")

    assert b"keep-alive" not in rest.partition(event[20:])[0]
    assert event[20:] in rest


async def test_who_says_something_of_buffering_is_believed(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, TOOL_CALLS))
    upstream.on_request = replies(sse_head(b"X-Accel-Buffering: yes") + chunked(*stream(CALL)))

    ours = await ask(gateway.port, post(body=request(tools=TOOLS, stream=True)))
    theirs = await ask(gateway.port, post(body=request(stream=True)))

    assert ours.head.all(b"x-accel-buffering") == theirs.head.all(b"x-accel-buffering") == [b"yes"]
    upstream.on_request = replies(sse_head() + chunked(*stream(CALL)))
    assert (await ask(gateway.port, post(body=request(stream=True)))).get(b"x-accel-buffering") is None
