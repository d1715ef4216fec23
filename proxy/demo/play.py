"""Play a script to a client: as events, or as one body, with the faults it asks for.

A cut drops the connection with the answer unfinished, and a stall keeps it open
and silent until the client leaves, as engines do when they are killed or drained.
"""

import asyncio
from dataclasses import dataclass

import orjson
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from proxy.demo.prompt import Prompt
from proxy.demo.script import Script, Step
from proxy.demo.shapes import Envelope, Json, error, usage_of

# aiohttp-sse pings every 15 s unless told otherwise; a scripted stream holds only what its
# script says, and a stalled one must be silent for as long as anyone waits.
NO_PING = 7 * 24 * 3600.0


@dataclass(slots=True)
class Progress:
    """How far one answer came: steps played, and whether its script dropped the connection."""

    steps: int = 0
    broken: bool = False


async def play_stream(
    request: web.Request, prompt: Prompt, envelope: Envelope, progress: Progress
) -> web.StreamResponse:
    script = prompt.script
    async with sse_response(request, sep="\n", allow_all_methods=True, ping_interval=NO_PING) as response:
        await _send(response, *(_opening(envelope, index) for index in range(prompt.choices)))
        for step in script.steps:
            if await _ended_early(request, response, script, progress):
                return response
            await asyncio.sleep(script.pause)
            await _send(response, *_deltas(envelope, step, prompt.choices))
            progress.steps += 1
        if not await _ended_early(request, response, script, progress):
            await _finish(response, prompt, envelope)
    return response


async def play_whole(
    request: web.Request, prompt: Prompt, envelope: Envelope, progress: Progress
) -> web.StreamResponse:
    script = prompt.script
    choices = [envelope.shape.choice(index, script) for index in range(prompt.choices)]
    usage = usage_of(prompt.prompt_tokens, script, prompt.choices)
    body = orjson.dumps(envelope.whole(choices, usage))
    await asyncio.sleep(script.pause * len(script.steps))
    progress.steps = len(script.steps)
    if script.error_after is not None:
        return refusal(500)
    if script.cut_after is None and script.stall_after is None:
        return web.Response(body=body, content_type="application/json")
    return await _half(request, script, body, progress)


def refusal(status: int) -> web.Response:
    """The error a script asked for, in the shape vLLM gives it."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    body = error("the message asked for this status", status=status, kind="demo_error")
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/json", headers=headers
    )


async def _half(request: web.Request, script: Script, body: bytes, progress: Progress) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await _break_off(request, progress, stall=script.cut_after is None)
    return response


async def _ended_early(
    request: web.Request, response: EventSourceResponse, script: Script, progress: Progress
) -> bool:
    """Act on a fault that is due now; true when the stream is over because of it."""
    if _is_due(script.error_after, script, progress):
        await response.send(_text(error("the message asked for this", status=500, kind="demo_error")))
        await response.send("[DONE]")
        return True
    for after, stall in ((script.cut_after, False), (script.stall_after, True)):
        if _is_due(after, script, progress):
            await _break_off(request, progress, stall=stall)
            return True
    return False


def _is_due(after: int | None, script: Script, progress: Progress) -> bool:
    """A fault set beyond the last step is due there."""
    return after is not None and progress.steps == min(after, len(script.steps))


async def _break_off(request: web.Request, progress: Progress, *, stall: bool) -> None:
    if stall:
        await asyncio.Event().wait()
    progress.broken = True
    if request.transport is not None:
        request.transport.abort()


async def _finish(response: EventSourceResponse, prompt: Prompt, envelope: Envelope) -> None:
    script = prompt.script
    for index in range(prompt.choices):
        await _send(response, envelope.chunk(envelope.shape.ending(index, script.finish)))
    if prompt.include_usage:
        await _send(response, envelope.last_chunk(usage_of(prompt.prompt_tokens, script, prompt.choices)))
    await response.send("[DONE]")


def _opening(envelope: Envelope, index: int) -> Json | None:
    choice = envelope.shape.opening(index)
    return None if choice is None else envelope.chunk(choice)


def _deltas(envelope: Envelope, step: Step, choices: int) -> list[Json]:
    return [envelope.chunk(envelope.shape.delta(index, step)) for index in range(choices)]


async def _send(response: EventSourceResponse, *chunks: Json | None) -> None:
    for chunk in chunks:
        if chunk is not None:
            await response.send(_text(chunk))


def _text(chunk: Json) -> str:
    return orjson.dumps(chunk).decode()
