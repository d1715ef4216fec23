"""The built-in engine: an OpenAI-compatible server for first runs, tests and benches.

It answers with the scripts of `script.py`, so a client can be shown every kind of
answer a real engine gives, and every way one breaks. It has no model and no limits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import orjson
from aiohttp import web

from proxy.clock import Clock, wall
from proxy.demo import prompt as prompts
from proxy.demo.play import Progress, play_stream, play_whole, refusal
from proxy.demo.prompt import BadPrompt, Prompt
from proxy.demo.script import count_tokens
from proxy.demo.shapes import ChatShape, Envelope, Json, Shape, TextShape, error
from proxy.demo.vectors import DEFAULT_DIMENSIONS, MAX_DIMENSIONS, packed, vector

# As the gateway's own default: a long agent turn with images stays below.
MAX_BODY_BYTES = 100 * 1024 * 1024
# What a long agent turn needs; no script is checked against it.
CONTEXT_LENGTH = 262_144


@dataclass(slots=True)
class Counters:
    """What the engine did since it started; /stats shows it.

    `aborted`: the client left. `broken`: the script dropped the connection.
    """

    requests: int = 0
    in_flight: int = 0
    completed: int = 0
    broken: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def make_app(models: Sequence[str] = ("demo",), *, clock: Clock = wall) -> web.Application:
    """The engine as an application. Run it with `handler_cancellation=True`, as `start` does."""
    engine = _Engine(models, clock)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_openai_errors])
    app.add_routes(
        [
            web.post("/v1/chat/completions", engine.chat),
            web.post("/v1/completions", engine.text),
            web.post("/v1/embeddings", engine.embeddings),
            web.get("/v1/models", engine.models),
            web.get("/v1/models/{id:.+}", engine.model),
            web.get("/health", engine.health),
            web.get("/stats", engine.stats),
        ]
    )
    return app


async def start(host: str, port: int, *, models: Sequence[str] = ("demo",)) -> web.AppRunner:
    """Listen; `runner.addresses` tells the port, and the caller ends it with `runner.cleanup()`."""
    app = make_app(models)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


class _Engine:
    def __init__(self, models: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        self._started = int(clock())
        self._models = tuple(models)
        self._counters = Counters()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, prompts.chat(await request.read()), ChatShape())

    async def text(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, prompts.text(await request.read()), TextShape())

    async def embeddings(self, request: web.Request) -> web.Response:
        fields = prompts.parse(await request.read())
        texts = prompts.inputs(fields)
        size = fields.get("dimensions", DEFAULT_DIMENSIONS)
        if not isinstance(size, int) or not 1 <= size <= MAX_DIMENSIONS:
            raise BadPrompt("dimensions must be a positive number that fits a vector")
        encode = packed if fields.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector(text, size))}
            for index, text in enumerate(texts)
        ]
        tokens = sum(count_tokens(text) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": fields.get("model", "demo"), "usage": usage})

    async def models(self, request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._card(name) for name in self._models]})

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self._models:
            return _refused(404, "there is no such model here")
        return _json(self._card(name))

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def stats(self, request: web.Request) -> web.Response:
        return _json(asdict(self._counters))

    async def _answer(self, request: web.Request, prompt: Prompt, shape: Shape) -> web.StreamResponse:
        progress = Progress()
        with self._counted(prompt, progress) as number:
            await asyncio.sleep(prompt.script.wait)
            if prompt.script.status >= 400:
                return refusal(prompt.script.status)
            envelope = Envelope(shape, f"{shape.prefix}-{number}", int(self._clock()), prompt.model)
            play = play_stream if prompt.stream else play_whole
            return await play(request, prompt, envelope, progress)

    @contextmanager
    def _counted(self, prompt: Prompt, progress: Progress) -> Iterator[int]:
        counters = self._counters
        counters.requests += 1
        counters.in_flight += 1
        counters.prompt_tokens += prompt.prompt_tokens
        left = False
        try:
            yield counters.requests
        except (asyncio.CancelledError, ConnectionResetError):
            left = True
            raise
        finally:
            counters.in_flight -= 1
            counters.completion_tokens += progress.steps * prompt.choices
            counters.broken += progress.broken
            counters.aborted += left and not progress.broken
            counters.completed += not (left or progress.broken)

    def _card(self, name: str) -> Json:
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "llmproxy-demo",
            "max_model_len": CONTEXT_LENGTH,
        }


@web.middleware
async def _openai_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal in OpenAI's shape: bodies that cannot be read, and what the router does not know."""
    try:
        return await handler(request)
    except BadPrompt as refused:
        return _refused(400, str(refused))
    except web.HTTPError as refused:
        return _refused(refused.status, refused.reason, allow=refused.headers.get("Allow"))


def _refused(status: int, message: str, *, allow: str | None = None) -> web.Response:
    response = _json(error(message, status=status), status=status)
    if allow is not None:
        response.headers["Allow"] = allow
    return response


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
