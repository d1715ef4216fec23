"""Serves the demo engine: beside a gateway in its process, or alone."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from proxy.demo.app import make_app


def free_socket(host: str = "127.0.0.1", port: int = 0) -> tuple[socket.socket, str]:
    """A bound socket and its URL; port 0 takes a free one."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock, f"http://{host}:{sock.getsockname()[1]}"


@asynccontextmanager
async def demo_engine(sock: socket.socket) -> AsyncIterator[None]:
    """The engine, for as long as the context lasts."""
    # Handlers notice that a client left, as real engines do.
    runner = web.AppRunner(make_app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


def serve_alone(host: str, port: int) -> None:
    """Serve until interrupted."""

    async def forever() -> None:
        sock, url = free_socket(host, port)
        async with demo_engine(sock):
            print(f"The demo engine listens on {url}", flush=True)
            await asyncio.Event().wait()

    asyncio.run(forever())
