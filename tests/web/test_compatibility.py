# ruff: noqa: E501 (tables read better on one line)
"""Limits within the context, errors in one shape, calls repaired and prefixes guarded, through a gateway."""

import gzip
import json
import re
import signal

import pytest
from kit.client import ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

from proxy.web.rewrite import MAX_ERROR_BYTES

CLAMP = {"kind": "clamp_max_tokens"}
ERRORS = {"kind": "normalize_errors"}
CALLS = {"kind": "normalize_tool_calls"}
GUARD = {"kind": "prefix_guard"}

TOOLS = [{"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}]
LONG = "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens."


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def adapted(upstream, *adapters, **model):
    return settings(upstream.port, models=[{"id": "m", "adapters": list(adapters), **model}])


def request(*messages, **fields):
    return json.dumps(
        {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}], **fields}
    ).encode()


def user(text):
    return {"role": "user", "content": text}


async def figure(gateway, name, kind):
    page = (await ask(gateway.port, get(b"/metrics"))).body.decode()
    found = re.search(rf'^llmproxy_{name}_total\{{kind="{kind}"\}} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else None


def delta(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    whole = {"id": "c-1", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


# /v1/models


async def test_models_say_what_clients_ask_for(new_gateway, upstream):
    """What is configured, and what only the server knows."""
    listed = {"data": [{"id": "org/Model", "max_model_len": 32768}, {"id": "extra", "meta": {"n_ctx": 4096}}]}
    upstream.on_request = replies(answer(json.dumps(listed).encode()))
    known = {"upstream_model": "org/Model", "max_output": 8192, "tools": True, "reasoning": False}
    gateway = new_gateway(adapted(upstream, **known))

    page = json.loads((await ask(gateway.port, get(b"/v1/models"))).body)

    model, extra = page["data"]
    assert (model["id"], extra["id"]) == ("m", "extra")
    assert (model["context_length"], model["max_model_len"], model["max_output_tokens"]) == (
        32768,
        32768,
        8192,
    )
    assert model["capabilities"] == {"tools": True, "reasoning": False}
    assert extra["context_length"] == 4096


# clamp_max_tokens


async def test_a_limit_is_lowered_in_its_digits_only(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CLAMP, context_length=32768))
    body = b'{ "model" : "m", "max_tokens":32000, "messages": [{"role":"user","content":"%b"}]}' % (
        b"a " * 9000
    )

    await ask(gateway.port, post(body=body))

    sent = upstream.requests[0].body
    limit = json.loads(sent)["max_tokens"]
    assert 32768 - 256 - 6100 < limit < 32768 - 256 - 6000
    assert sent == body.replace(b"32000", b"%d" % limit)
    assert await figure(gateway, "max_tokens_clamped", "m") == 1


async def test_what_the_upstream_counts_is_learned(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CLAMP, context_length=32768, upstream_model="org/Model"))
    usage = {"prompt_tokens": 4000, "completion_tokens": 1, "total_tokens": 4001}
    upstream.on_request = replies(answer(json.dumps({"choices": [], "usage": usage}).encode()))
    body = request(user("a " * 9000), max_tokens=32000)

    for _ in range(3):
        await ask(gateway.port, post(body=body))

    limits = [json.loads(sent.body)["max_tokens"] for sent in upstream.requests]
    assert limits[0] < 27000 < 27900 < limits[2] <= 32768 - 256 - 4000
    assert {json.loads(sent.body)["model"] for sent in upstream.requests} == {"org/Model"}


# normalize_errors

VLLM = b'{"error": {"message": "%b", "type": "BadRequestError", "param": null, "code": 400}}' % LONG.encode()


@pytest.mark.parametrize(
    ("status", "kind", "body", "expected"),
    [
        (b"400 Bad Request", b"application/json", VLLM, (LONG, "context_length_exceeded")),
        (b"500 Internal Server Error", b"application/json", VLLM, (LONG, "context_length_exceeded")),
        (b"422 Unprocessable", b"application/json", b'{"detail": "no"}', ("no", None)),
        (b"500 Oops", b"text/plain", b"Internal Server Error", ("Internal Server Error", None)),
        (b"502 Bad Gateway", b"text/html", b"<html><title>502 Bad</title></html>", ("502 Bad", "upstream_error")),
        (b"429 Slow", b"application/json", b'{"error":"busy","error_type":"overloaded"}', ("busy", "rate_limit_exceeded")),
        (b"400 Bad", b"text/plain", b"", ("The upstream refused the request and did not say why.", None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_an_error_of_any_shape_and_framing_is_openais(gateways, status, kind, body, expected, framing):
    async with ScriptedUpstream(port=gateways.backend_port) as upstream:
        gateway = gateways.get(adapted(upstream, ERRORS))
        head = lines(b"HTTP/1.1 " + status, b"Content-Type: " + kind, b"Retry-After: 7", b"Connection: close")
        answers = {
            "length": answer(body, b"Retry-After: 7", status=status, kind=kind),
            "chunked": head.replace(b"Connection: close", b"Transfer-Encoding: chunked") + chunked(body)
            if body
            else head.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
            "close": head + body,
        }
        upstream.on_request = replies(answers[framing], "fin" if framing == "close" else "keep")

        response = await ask(gateway.port, post(body=request(stream=True)))

    error = json.loads(response.body)["error"]
    assert (error["message"], error["code"]) == expected
    assert error.keys() == {"message", "type", "param", "code"}
    assert (b"%d" % response.status) == status[:3]
    assert response.head.all(b"content-type") == [b"application/json"]
    assert int(response.get(b"content-length")) == len(response.body)
    assert response.get(b"retry-after") == b"7"


async def test_an_error_that_is_right_keeps_every_byte(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS))
    body = b'{ "error": {"message":"No.","type":"invalid_request_error","param":null,"code":null} }\n'
    upstream.on_request = replies(answer(body, status=b"400 Bad", kind=b"application/json; charset=utf-8"))

    response = await ask(gateway.port, post(body=request()))

    assert (response.status, response.body) == (400, body)
    assert response.get(b"content-type") == b"application/json; charset=utf-8"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_error_too_large_to_be_read_passes_as_it_is(new_gateway, upstream, framing):
    gateway = new_gateway(adapted(upstream, ERRORS))
    body = b'{"error":"' + b"x" * MAX_ERROR_BYTES + b'"}'
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    head = lines(b"HTTP/1.1 500 Oops", b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    whole = answer(body, status=b"500 Oops") if framing == "length" else head + chunked(*pieces)
    upstream.on_request = replies(whole)

    response = await ask(gateway.port, post(body=request()))

    assert (response.status, response.framing, response.is_complete) == (500, framing, True)
    assert response.body == body


async def test_a_compressed_error_passes_as_it_is(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS))
    body = gzip.compress(b'{"error":"no"}')
    upstream.on_request = replies(answer(body, b"Content-Encoding: gzip", status=b"400 Bad"))

    response = await ask(gateway.port, post(b"/v1/chat/completions", request(), b"Accept-Encoding: gzip"))

    assert response.body == body
    assert upstream.requests[0].head.all(b"accept-encoding") == [b"identity"]


async def test_an_error_that_breaks_off_is_one_of_ours(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS))
    upstream.on_request = replies(answer(b'{"error":"no"}', status=b"400 Bad")[:-3], "fin")

    response = await ask(gateway.port, post(body=request()))

    assert (response.status, json.loads(response.body)["error"]["code"]) == (502, "upstream_error")


async def test_a_messages_client_gets_anthropics_object(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS))
    upstream.on_request = replies(answer(VLLM, status=b"400 Bad"))

    response = await ask(gateway.port, post(b"/v1/messages?beta=true", request()))

    document = json.loads(response.body)
    assert (document["type"], document["error"]["message"]) == ("error", LONG)


async def test_an_error_inside_a_stream_becomes_an_object(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS))
    began, ended = delta({"content": 'the "error"'}), b"data: [DONE]\n\n"
    upstream.on_request = replies(sse_head() + chunked(began, b'data: {"error": "boom"}\n\n', ended))

    response = await ask(gateway.port, post(body=request(stream=True)))

    error = {"message": "boom", "type": "server_error", "param": None, "code": None}
    assert response.body.startswith(began)
    assert json.loads(response.body[len(began) + 6 : -len(ended)]) == {"error": error}
    assert response.body.endswith(ended)


async def test_a_stream_that_breaks_passes_what_came_and_does_not_end(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, ERRORS, CALLS))
    sent = delta({"content": "one"}) + b'data: {"half'
    upstream.on_request = replies(sse_head() + chunk(sent), "fin")

    response = await ask(gateway.port, post(body=request(stream=True, tools=TOOLS)))

    assert not response.is_complete
    assert response.body == sent


# normalize_tool_calls


async def test_calls_are_repaired_and_counted_by_model(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CALLS))
    text = delta({"role": "assistant", "content": "On it."})
    call = delta({"tool_calls": [{"function": {"name": "write", "arguments": {"path": "a"}}}]})
    upstream.on_request = replies(sse_head() + chunked(text, call, delta({}, "stop"), b"data: [DONE]\n\n"))

    response = await ask(gateway.port, post(body=request(stream=True, tools=TOOLS)))

    assert response.body.startswith(text)
    call, end = (json.loads(line[6:])["choices"][0] for line in response.body.split(b"\n\n")[1:3])
    (entry,) = call["delta"]["tool_calls"]
    assert (entry["index"], entry["function"]) == (0, {"name": "write", "arguments": '{"path":"a"}'})
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", entry["id"])
    assert end["finish_reason"] == "tool_calls"
    assert await figure(gateway, "tool_calls_malformed", "m") == 1


async def test_calls_of_a_whole_answer_are_repaired_alike(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CALLS))
    call = {"id": "a", "type": "function", "function": {"name": "write", "arguments": "{'"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    upstream.on_request = replies(answer(json.dumps(whole).encode()))

    response = await ask(gateway.port, post(body=request(tools=TOOLS)))

    assert json.loads(response.body)["choices"][0]["finish_reason"] == "tool_calls"
    assert await figure(gateway, "tool_calls_invalid", "m") == 1


async def test_a_request_without_tools_asks_for_nothing_else(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CALLS))
    body = b'{"model":"m", "messages":[ ], "stream":true}'

    await ask(gateway.port, post(b"/v1/chat/completions", body, b"Accept-Encoding: br"))

    assert upstream.requests[0].body == body
    assert upstream.requests[0].head.all(b"accept-encoding") == [b"br"]


async def test_it_stands_beside_a_format_of_its_own(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CALLS, ERRORS, {"kind": "tool_calls", "format": "hermes"}))
    text = '<tool_call>{"name": "write", "arguments": {"path": "a"}}</tool_call>'
    events = [delta({"content": text[at : at + 5]}) for at in range(0, len(text), 5)]
    upstream.on_request = replies(sse_head() + chunked(*events, delta({}, "stop"), b"data: [DONE]\n\n"))

    response = await ask(gateway.port, post(body=request(stream=True, tools=TOOLS)))

    assert b'"name":"write"' in response.body
    assert b'"finish_reason":"tool_calls"' in response.body


async def test_a_body_that_is_no_json_passes_where_nothing_of_it_is_needed(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, CALLS, GUARD, ERRORS))
    body = b'{"model":"m","messages":[}'

    await ask(gateway.port, post(body=body))

    assert upstream.requests[0].body == body


# prefix_guard

BILLING = "x-anthropic-billing-header: cc_version=2.1.197; cch=%d;"


def claude(number, *turns):
    system = [{"type": "text", "text": BILLING % number}, {"type": "text", "text": "You are Claude Code."}]
    return json.dumps(
        {
            "model": "m",
            "system": system,
            "messages": [user("hi"), *turns],
            "metadata": {"user_id": "u_session_1"},
        }
    ).encode()


async def test_a_line_that_changes_each_time_never_reaches_the_upstream(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, GUARD))
    turns = [{"role": "assistant", "content": "yes"}, user("go on")]

    first = await ask(gateway.port, post(b"/v1/messages?beta=true", claude(1)))
    second = await ask(gateway.port, post(b"/v1/messages?beta=true", claude(2, *turns)))

    systems = [json.loads(sent.body)["system"] for sent in upstream.requests]
    assert systems == [[{"type": "text", "text": "You are Claude Code."}]] * 2
    assert [r.get(b"x-llmproxy-prefix-diverged-at") for r in (first, second)] == [None, None]
    assert await figure(gateway, "prefix_stripped", "m") == 2
    assert await figure(gateway, "prefix_compared", "m") == 1
    assert await figure(gateway, "prefix_diverged", "m") is None


async def test_a_prompt_that_begins_otherwise_is_told_counted_and_in_the_end_logged(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, GUARD))

    def turn(number):
        system = {"role": "system", "content": "x" * 1000 + f" It is 12:0{number}."}
        return post(b"/v1/chat/completions", request(system, user("hi")), b"X-Session-Id: s-1")

    responses = [await ask(gateway.port, turn(number)) for number in range(5)]

    at = [response.get(b"x-llmproxy-prefix-diverged-at") for response in responses]
    assert at == [None, b"1024", b"1024", b"1024", b"1024"]
    assert responses[1].get(b"x-llmproxy-prefix-diverged-in") == b"system"
    assert await figure(gateway, "prefix_diverged", "m") == 4
    assert await figure(gateway, "prefix_diverged_in", "system") == 4
    await eventually(lambda: gateway.output.count("begin differently each time") == 1, "the warning")
    assert "It is 12:0" not in gateway.output


async def test_the_share_that_the_cache_held_is_told_and_counted(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, GUARD))
    details = {"prompt_tokens_details": {"cached_tokens": 75}}
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101, **details}
    upstream.on_request = replies(answer(json.dumps({"choices": [], "usage": usage}).encode()))

    first, second = [await ask(gateway.port, post(body=request(user("hi")))) for _ in range(2)]

    assert first.get(b"x-llmproxy-prefix-cached") is None
    assert second.get(b"x-llmproxy-prefix-cached") == b"0.750"
    assert await figure(gateway, "prefix_prompt_tokens", "m") == 200
    assert await figure(gateway, "prefix_cached_tokens", "m") == 150


async def test_a_request_that_falls_back_is_guarded_for_the_model_that_answers(new_gateway, upstream):
    async with ScriptedUpstream(replies(answer(status=b"503 Busy"))) as busy:
        pools = {
            name: {"backends": [{"name": name, "url": f"http://127.0.0.1:{each.port}"}]}
            for name, each in (("busy", busy), ("free", upstream))
        }
        models = [
            {"id": "m", "pool": "busy", "adapters": [GUARD, ERRORS], "fallback": ["n"]},
            {"id": "n", "pool": "free", "adapters": [GUARD]},
        ]
        configuration = settings(pools=pools, models=models, routing={"default_pool": ""})
        del configuration["backends"]
        gateway = new_gateway(configuration)
        system = {"role": "system", "content": BILLING % 1 + "\nBe brief."}

        response = await ask(gateway.port, post(body=request(system, user("hi"))))
        changed = await ask(gateway.port, post(body=request({**system, "content": "x"}, user("hi"))))

    assert (response.status, changed.status) == (200, 200)
    assert json.loads(upstream.requests[0].body)["messages"][0]["content"] == "Be brief."
    assert changed.head.all(b"x-llmproxy-prefix-diverged-in") == [b"system"]


async def test_prompts_of_the_responses_api_are_guarded(new_gateway, upstream):
    gateway = new_gateway(adapted(upstream, GUARD))

    def turn(number, *said, **fields):
        asked = {"model": "m", "instructions": f"Be brief.\n{BILLING % number}", "input": [user("hi"), *said]}
        return post(b"/v1/responses", json.dumps({**asked, **fields}).encode(), b"X-Session-Id: s-1")

    first = await ask(gateway.port, turn(1))
    second = await ask(gateway.port, turn(2, {"role": "assistant", "content": "yes"}, user("go on")))
    other = await ask(gateway.port, turn(3, instructions="Be long."))
    kept = await ask(gateway.port, turn(4, previous_response_id="resp_1", instructions="Be wild."))

    sent = [json.loads(request.body).get("instructions") for request in upstream.requests]
    assert sent == ["Be brief.", "Be brief.", "Be long.", "Be wild."]
    diverged = [each.get(b"x-llmproxy-prefix-diverged-in") for each in (first, second, other, kept)]
    assert diverged == [None, None, b"system", None]
    assert await figure(gateway, "prefix_stripped", "m") == 2


async def test_what_was_learned_outlives_a_reload(new_gateway, upstream):
    configuration = adapted(upstream, CLAMP, GUARD, context_length=32768)
    gateway = new_gateway(configuration)
    usage = {"prompt_tokens": 4000, "completion_tokens": 1, "total_tokens": 4001}
    upstream.on_request = replies(answer(json.dumps({"choices": [], "usage": usage}).encode()))
    long = user("a " * 9000)

    for _ in range(2):
        await ask(gateway.port, post(body=request(long, max_tokens=32000)))
    configuration["models"][0]["adapters"][0] = {**CLAMP, "margin": 128}
    gateway.write(configuration)
    gateway.signal(signal.SIGHUP)

    async def is_new():
        return b"llmproxy_config_generation 2" in (await ask(gateway.port, get(b"/metrics"))).body

    await eventually(is_new, "the new configuration is served")
    changed = await ask(
        gateway.port, post(body=request({"role": "system", "content": "x"}, long, max_tokens=32000))
    )

    first, learned, after = [json.loads(sent.body)["max_tokens"] for sent in upstream.requests]
    assert learned > first + 1000
    assert after > learned  # a model that nothing is known of would have got first + 128
    assert changed.get(b"x-llmproxy-prefix-diverged-in") == b"system"
