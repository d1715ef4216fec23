"""Which of the application's handlers a request goes to, found without asking its router each time."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import web

from proxy.web.errors import Handler
from proxy.web.forward import forward
from proxy.web.request import Request
from proxy.web.run import in_task

EVERYTHING = "/{path}"  # what is forwarded, as the router calls it

Middleware = Callable[[Request, Handler], Awaitable[web.StreamResponse]]


class Dispatcher:
    """Sends pages through the router, and everything else down the application's own chain.

    The router would find `forward` for the same requests; asking it, and
    wrapping the handler anew, costs a tenth of a small request. So the chain of
    the same middlewares is put together once.
    """

    def __init__(self, app: web.Application, by_router: Handler) -> None:
        self._by_router = by_router
        resources = [one.canonical for one in app.router.resources()]
        self._forwards = EVERYTHING in resources
        self._pages = frozenset(path for path in resources if "{" not in path)
        self._below = tuple(
            path.partition("{")[0] for path in resources if "{" in path and path != EVERYTHING
        )
        self._chain: Handler = forward
        for middleware in reversed(list(app.middlewares)):
            self._chain = _step(cast(partial[Any], middleware).func, self._chain)

    def __call__(self, request: Request) -> Awaitable[web.StreamResponse]:
        connection = request.connection
        head = connection.head
        assert head is not None
        memo = head.memo if head.common is None else head.common.memo
        is_page = memo.get(self)
        if is_page is None:
            is_page = memo[self] = self._is_page(head.target)
        connection.is_routed = is_page
        return self._page(request) if is_page else self._chain(request)

    async def _page(self, request: Request) -> web.StreamResponse:
        await in_task()
        return await self._by_router(request)

    def _is_page(self, target: bytes) -> bool:
        # The router compares decoded paths; what it then sends to `forward` all the same is forwarded.
        path = unquote(target.partition(b"?")[0])
        return not self._forwards or path in self._pages or path.startswith(self._below)


def _step(middleware: Middleware, handler: Handler) -> Handler:
    def step(request: Request) -> Awaitable[web.StreamResponse]:
        return middleware(request, handler)

    return step
