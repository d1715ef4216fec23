"""Thousands of bodies, each odd in some member: adapters take any JSON, from clients and from upstreams.

What is refused is the client's mistake (400), what an upstream writes never breaks
a request, and every answer ends. The seed is fixed, as for the mutations of bytes.
`LLMPROXY_MUTATIONS=10000` runs the full number.
"""

import asyncio
import copy
import json
import os
import random

from kit.chat import TOOLS
from kit.client import RawClient
from kit.gateway import settings
from kit.wire import answer, chunk, chunked, post, sse_head

NUMBER = int(os.environ.get("LLMPROXY_MUTATIONS", "1000"))
SEED = 20_260_102
AT_ONCE = 24
CUT_SHARE = 0.15

MODELS = {
    "xml": [{"kind": "tool_calls", "format": "qwen3_xml"}, {"kind": "merge_system_messages"}],
    "auto": [{"kind": "tool_calls", "mode": "prompt"}, {"kind": "reasoning"}, {"kind": "normalize_errors"}],
    "toolify": [{"kind": "tool_calls", "format": "toolify_xml", "mode": "prompt"}, {"kind": "prefix_guard"}],
    "native": [{"kind": "normalize_tool_calls"}, {"kind": "normalize_errors"}, {"kind": "clamp_max_tokens"}],
}

ODD = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    "x" * 3000,
    "\ud800",
    "\0",
    "<tool_call>",
    "</tool_call>",
    "<think>",
]
ODD += [
    [],
    {},
    [[]],
    [None],
    {"": None},
    [1, 2],
    {"function": None},
    {"function": {"name": 5}},
    "data: x\n\n",
]

CALL = "<tool_call>\n<function=write>\n<parameter=path>\nx\n</parameter>\n</function>\n</tool_call>"
NATIVE = {
    "index": 0,
    "id": "c",
    "type": "function",
    "function": {"name": "read", "arguments": '{"path":"x"}'},
}
TOLD = {"role": "tool", "tool_call_id": "c", "content": "done"}
HISTORY = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}]
HISTORY += [
    {"role": "assistant", "content": None, "tool_calls": [NATIVE]},
    TOLD,
    {"role": "developer", "content": "d"},
]
REQUESTS = [
    {"stream": True, "max_tokens": 9, "tools": TOOLS, "tool_choice": "auto", "messages": HISTORY},
    {
        "n": 2,
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "read"}},
        "messages": HISTORY,
    },
]


def delta(finish=None, **members):
    return {"id": "a", "choices": [{"index": 0, "delta": members, "finish_reason": finish}]}


STREAMS = [
    [
        delta(role="assistant", content="<think>hm</think>"),
        delta(content=CALL[:30]),
        delta(content=CALL[30:]),
    ],
    [delta(reasoning_content="hm"), delta(tool_calls=[NATIVE]), delta("tool_calls")],
    [
        delta(content="text"),
        delta("stop"),
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}},
    ],
    [{"error": {"message": "no", "type": "x", "code": 500}}],
]
WHOLES = [
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": CALL}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "message": {"tool_calls": [NATIVE]}, "finish_reason": "length"}], "usage": {}},
    {"error": {"message": "no", "type": "x"}},
    {"detail": "not found"},
]


def places(value, path=()):
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


def mutant(document, dice):
    document = copy.deepcopy(document)
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        *path, last = dice.choice([*places(document)] or [("x",)])
        holder = document
        for key in path:
            holder = holder[key]
        if dice.random() < 0.25 and last in (holder if isinstance(holder, dict) else range(len(holder))):
            del holder[last]
        else:
            holder[last] = copy.deepcopy(dice.choice(ODD))
    return document


def written(document, dice):
    text = json.dumps(document, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return text[: dice.randrange(len(text))] if dice.random() < 0.03 else text


def dice_of(number, side):
    return random.Random(f"{SEED} {number} {side}")


async def odd_answer(connection, request):
    dice = dice_of(request.head.get(b"X-Number").decode(), "upstream")
    if dice.random() < 0.4:
        status = dice.choice((b"200 OK", b"200 OK", b"400 Bad", b"404 No", b"503 Busy"))
        connection.write(answer(written(mutant(dice.choice(WHOLES), dice), dice), status=status))
        return
    events = [written(mutant(event, dice), dice) for event in dice.choice(STREAMS)]
    connection.write(sse_head() + b"".join(chunk(b"data: " + event + b"\n\n") for event in events))
    if dice.random() < CUT_SHARE:
        connection.close()
    else:
        connection.write(chunked(b"data: [DONE]\n\n"))


async def test_no_mutation_of_json_is_an_error_of_ours(new_gateway, upstream, backend_port):
    models = [{"id": name, "context_length": 32768, "adapters": made} for name, made in MODELS.items()]
    gateway = new_gateway(settings(backend_port, models=models, routing={"breaker": {"enabled": False}}))
    upstream.on_request = odd_answer
    gate = asyncio.Semaphore(AT_ONCE)
    bad = []

    async def one(number):
        dice = dice_of(number, "client")
        body = {"model": dice.choice([*MODELS]), **mutant(dice.choice(REQUESTS), dice)}
        request = post(b"/v1/chat/completions", written(body, dice), b"X-Number: %d" % number)
        async with gate, await RawClient.connect(gateway.port) as client:
            response = await client.ask(request, 60)
        if response.status in (500, 502, 504) or response.end == "silent":
            bad.append((number, response.status, response.end, response.body))

    await asyncio.gather(*(one(number) for number in range(NUMBER)))

    assert bad == []
    assert len(upstream.requests) > NUMBER / 2
    assert [line for line in gateway.log_lines() if '"level":"error"' in line] == []
