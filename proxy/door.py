"""One address clients come in by: its application, its sockets, its connections."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import cast

from aiohttp import web

from proxy.config.schema import Server, Tls
from proxy.errors import ProxyError
from proxy.listeners import BACKLOG, url_of
from proxy.runtime import Holder, Runtime
from proxy.upstream.outflow import Outflow
from proxy.upstream.watch import Watch
from proxy.web.answer import written
from proxy.web.dispatch import Dispatcher
from proxy.web.downstream import DownstreamConnection
from proxy.web.errors import Handler, error_body, error_headers
from proxy.web.host import Limits
from proxy.web.inbox import Inbox
from proxy.web.trace import new_request_id

log = logging.getLogger(__name__)

# A client that opens a TLS connection and says nothing is let go after this, or sooner if `read_timeout` is.
TLS_HANDSHAKE_SECONDS = 10.0

# As many connections are taken before others are served again. asyncio goes on accepting for so many
# times even when there are no files left.
ACCEPT_AT_ONCE = 64

# libuv takes one connection from a listening socket in each turn of the loop, so that new ones come one by
# one and each pays for turns and wake-ups alone. Of so many handles on the same socket each takes one: with a
# new connection for each request that is 94 us a request instead of 167 us. Who finds nobody costs 0.4 us.
HANDLES_ON_UVLOOP = 8

# A client that connected just before the drain gets so long to say what it wants.
FIRST_REQUEST_SECONDS = 0.5


class Door:
    """The `Host` of the connections that came in by it."""

    handler: Handler

    def __init__(self, app: web.Application, holder: Holder, watch: Watch, limits: Limits) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._holder = holder
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self.watch = watch
        self.outflow = Outflow(asyncio.get_running_loop())
        self.limits = limits
        self.inbox = Inbox()
        self.loop = asyncio.get_running_loop()
        self.connections: set[DownstreamConnection] = set()
        self.is_draining = False
        self.urls: list[str] = []

    async def open(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Accept connections."""
        await self._runner.setup()
        assert self._runner.server is not None
        self.handler = Dispatcher(self._runner.app, cast(Handler, self._runner.server.request_handler))
        handshake = min(TLS_HANDSHAKE_SECONDS, self.limits.read_timeout)
        for sock in sockets:
            self.urls.append(url_of(sock, tls=tls is not None))
            for handle in (sock, *(sock.dup() for _ in range(self._further_handles()))):
                server = await self.loop.create_server(
                    lambda: DownstreamConnection(self),
                    sock=handle,
                    backlog=ACCEPT_AT_ONCE,
                    ssl=tls,
                    ssl_handshake_timeout=handshake if tls is not None else None,
                )
                self._sockets.append(handle)
                self._servers.append(server)
            sock.listen(BACKLOG)

    def _further_handles(self) -> int:
        return HANDLES_ON_UVLOOP - 1 if type(self.loop).__module__.startswith("uvloop") else 0

    async def drain(self) -> None:
        """Let nobody in; requests that run may end, and those on their way may come."""
        self.is_draining = True
        for sock in self._sockets:
            self.loop.remove_reader(sock)
        # Closing drops connections that asyncio has taken in this round and not yet given to anybody.
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.drain(at_once=False)
        self.loop.call_later(FIRST_REQUEST_SECONDS, self._end_waiting)

    def _end_waiting(self) -> None:
        for connection in list(self.connections):
            connection.drain(at_once=True)

    @property
    def busy(self) -> int:
        """Requests that run."""
        return sum(connection.is_busy for connection in self.connections)

    @property
    def is_busy(self) -> bool:
        """Whether a request runs or may still come, or the end of an answer is yet to be written."""
        return any(one.is_busy or one.is_expecting or one.has_unsent for one in self.connections)

    def abort(self) -> None:
        """End what still runs."""
        for connection in list(self.connections):
            connection.abort("shutdown")

    async def close(self) -> None:
        await self._runner.cleanup()

    # -- Host --------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        return self._holder.runtime

    def refused(self, connection: DownstreamConnection, error: ProxyError, *, is_head: bool) -> bytes:
        """The answer to what never became a request."""
        request_id = new_request_id()
        self.runtime.services.metrics.count("refused_requests", error.code or error.type)
        log.info(
            "unreadable request refused",
            extra={
                "id": request_id,
                "peer": str(connection.peername),
                "status": error.status,
                "why": error.message,
            },
        )
        lines = [f"{name}: {value}" for name, value in error_headers(error, request_id).items()]
        body = error_body(error)
        return written(error.status, None, lines, body, is_head=is_head, keep_alive=False)


def limits_of(server: Server) -> Limits:
    """What one client connection may take of time and memory."""
    return Limits(server.max_header_bytes, server.read_timeout, server.idle_timeout)


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """The server side's TLS settings, None for plain HTTP; raises OSError that names the file at fault."""
    if not tls.enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    load_certificates(context, tls)
    return context


def load_certificates(context: ssl.SSLContext, tls: Tls) -> None:
    """Read the files; connections that come from now on use what is in them."""
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
    except OSError as error:
        raise OSError(f"server.tls: {tls.cert_file} and {tls.key_file}: {_why(error)}") from error
    if tls.client_auth == "none":
        return
    try:
        context.load_verify_locations(tls.client_ca_file)
    except OSError as error:
        raise OSError(f"server.tls: {tls.client_ca_file}: {_why(error)}") from error
    context.verify_mode = ssl.CERT_REQUIRED if tls.client_auth == "require" else ssl.CERT_OPTIONAL


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a certificate and its key in PEM form ({error.reason or 'unreadable'})"
    return error.strerror or str(error)
