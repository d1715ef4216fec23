"""What a client's connection needs from the server it came in by."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from proxy.errors import ProxyError
from proxy.runtime import Runtime
from proxy.upstream.outflow import Outflow
from proxy.upstream.watch import Watch
from proxy.web.inbox import Inbox
from proxy.web.request import Request

if TYPE_CHECKING:
    from proxy.web.downstream import DownstreamConnection


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes for one client connection."""

    head_bytes: int = 64 * 1024
    read_timeout: float = 10.0
    idle_timeout: float = 75.0


class Host(Protocol):
    """What a connection needs from the server it belongs to."""

    limits: Limits
    is_draining: bool
    connections: "set[DownstreamConnection]"
    watch: Watch
    outflow: Outflow
    inbox: Inbox
    loop: asyncio.AbstractEventLoop
    handler: Callable[[Request], Awaitable[web.StreamResponse]]

    @property
    def runtime(self) -> Runtime:
        """The generation that serves new requests."""

    def refused(self, connection: "DownstreamConnection", error: ProxyError, *, is_head: bool) -> bytes:
        """Account for a request that never became one; returns the answer to send."""
