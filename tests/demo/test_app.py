"""The engine over real sockets: what an OpenAI client sees of it."""

import asyncio
import base64
import struct

import aiohttp
import orjson
import pytest

from proxy.demo.app import start

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
async def engine():
    runner = await start("127.0.0.1", 0, models=("demo", "org/other"))
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()


def chat(content, **fields):
    return {"model": "any", "messages": [{"role": "user", "content": content}], **fields}


async def events(response):
    body = await response.read()
    assert body.endswith(b"\n\n")
    lines = body.removesuffix(b"\n\n").split(b"\n\n")
    return [line.removeprefix(b"data: ") for line in lines]


async def test_a_stream_opens_with_the_role_and_ends_with_done(engine):
    response = await engine.post("/v1/chat/completions", json=chat("[[hello]]", stream=True))

    *chunks, done = await events(response)
    chunks = [orjson.loads(chunk) for chunk in chunks]
    assert response.content_type == "text/event-stream"
    assert done == b"[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "Hello from the demo engine."
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_usage_comes_in_a_chunk_of_its_own_only_when_asked_for(engine):
    asked = chat("[[count 9]]", stream=True, stream_options={"include_usage": True})

    *_, usage, done = await events(await engine.post("/v1/chat/completions", json=asked))
    plain = await events(await engine.post("/v1/chat/completions", json=chat("[[count 9]]", stream=True)))

    assert done == b"[DONE]"
    assert orjson.loads(usage)["choices"] == []
    assert orjson.loads(usage)["usage"] == {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11}
    assert not any(b'"usage"' in event for event in plain)


async def test_the_whole_answer_says_the_same_as_the_stream(engine):
    for mark in ("[[nasty]]", "[[utf8]]", "[[count 30]]"):
        whole = await (await engine.post("/v1/chat/completions", json=chat(mark))).json()
        stream = await events(await engine.post("/v1/chat/completions", json=chat(mark, stream=True)))

        deltas = [orjson.loads(event)["choices"][0]["delta"] for event in stream[:-1]]
        assert whole["choices"][0]["message"]["content"] == "".join(d.get("content", "") for d in deltas)


async def test_a_tool_call_is_streamed_in_pieces_that_make_json(engine):
    body = chat("[[tool]]", stream=True, tools=[TOOL])

    *chunks, _ = await events(await engine.post("/v1/chat/completions", json=body))

    deltas = [orjson.loads(chunk)["choices"][0] for chunk in chunks]
    calls = [call for choice in deltas for call in choice["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "get_weather"
    assert orjson.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "example"}
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_a_tool_result_ends_the_loop_with_text(engine):
    body = chat("[[tool]]", tools=[TOOL])
    body["messages"] += [{"role": "assistant", "content": None}, {"role": "tool", "content": "sunny"}]

    answer = await (await engine.post("/v1/chat/completions", json=body)).json()

    assert answer["choices"][0]["message"]["content"] == "The tool answered: sunny"


async def test_reasoning_has_its_own_field(engine):
    answer = await (await engine.post("/v1/chat/completions", json=chat("[[think]]"))).json()

    message = answer["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me think first."
    assert message["content"] == "Then I answer."
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}


async def test_several_choices_are_whole_answers_each(engine):
    *chunks, _ = await events(
        await engine.post("/v1/chat/completions", json=chat("[[count 4]]", n=2, stream=True))
    )

    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in orjson.loads(chunk)["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: " 000 001 002 003", 1: " 000 001 002 003"}


async def test_plain_completions_stream_and_answer(engine):
    body = {"model": "any", "prompt": "[[hello]]"}

    whole = await (await engine.post("/v1/completions", json=body)).json()
    stream = await events(await engine.post("/v1/completions", json=body | {"stream": True}))

    assert whole["choices"][0]["text"] == "Hello from the demo engine."
    texts = [orjson.loads(event)["choices"][0]["text"] for event in stream[:-1]]
    assert "".join(texts) == "Hello from the demo engine."


async def test_embeddings_are_stable_and_the_same_in_both_encodings(engine):
    body = {"input": ["a", "b"], "dimensions": 8}

    floats = (await (await engine.post("/v1/embeddings", json=body)).json())["data"]
    encoded = await engine.post("/v1/embeddings", json=body | {"encoding_format": "base64"})

    packed = base64.b64decode((await encoded.json())["data"][0]["embedding"])
    assert struct.unpack("<8f", packed) == pytest.approx(floats[0]["embedding"], abs=1e-6)
    assert sum(x * x for x in floats[1]["embedding"]) == pytest.approx(1.0)
    assert floats[0]["embedding"] != floats[1]["embedding"]


async def test_models_are_listed_and_found_by_names_with_slashes(engine):
    listed = await (await engine.get("/v1/models")).json()
    found = await engine.get("/v1/models/org/other")
    missing = await engine.get("/v1/models/none")

    assert [card["id"] for card in listed["data"]] == ["demo", "org/other"]
    assert (found.status, missing.status) == (200, 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"{}", 400),
        ("POST", "/v1/chat/completions", b'{"messages": [7]}', 400),
        ("POST", "/v1/chat/completions", orjson.dumps(chat("x", n=0)), 400),
        ("POST", "/v1/completions", b'{"prompt": 7}', 400),
        ("POST", "/v1/embeddings", b'{"input": 7}', 400),
        ("POST", "/v1/embeddings", b'{"input": "x", "dimensions": 0}', 400),
        ("GET", "/v1/chat/completions", b"", 405),
        ("GET", "/nowhere", b"", 404),
        ("POST", "/v1/chat/completions", orjson.dumps(chat("[[status 503]]")), 503),
        ("POST", "/v1/chat/completions", orjson.dumps(chat("[[error 0]]")), 500),
    ],
)
async def test_refusals_are_openai_errors(engine, method, path, body, status):
    response = await engine.request(method, path, data=body)

    assert response.status == status
    assert (await response.json(content_type=None))["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_answer_never_looks_finished(engine, stream):
    response = await engine.post("/v1/chat/completions", json=chat("[[count 9]][[cut 2]]", stream=stream))

    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    stats = await (await engine.get("/stats")).json()
    assert (stats["broken"], stats["aborted"], stats["in_flight"]) == (1, 0, 0)


async def test_an_error_event_ends_a_stream_cleanly(engine):
    response = await engine.post("/v1/chat/completions", json=chat("[[count 9]][[error 2]]", stream=True))

    *_, failure, done = await events(response)
    assert "error" in orjson.loads(failure)
    assert done == b"[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stalled_answer_is_given_up_when_the_client_leaves(engine, stream):
    response = await engine.post("/v1/chat/completions", json=chat("[[count 9]][[stall 2]]", stream=stream))
    await response.content.readany()
    response.close()

    async with asyncio.timeout(5):
        while (await (await engine.get("/stats")).json())["in_flight"]:
            pass
    stats = await (await engine.get("/stats")).json()
    assert (stats["aborted"], stats["broken"]) == (1, 0)


async def test_waits_are_kept(engine):
    loop = asyncio.get_running_loop()
    begun = loop.time()

    await (
        await engine.post("/v1/chat/completions", json=chat("[[count 4]][[wait 60ms]][[slow 20ms]]"))
    ).read()

    assert loop.time() - begun >= 0.14
