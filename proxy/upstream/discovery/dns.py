"""Backends from DNS: the addresses of a name, or the servers of an SRV record.

A name that begins with `_` is asked for SRV (`_http._tcp.vllm.example`); of its
records those with the lowest priority number are used, weights as they are. Any
other name stands for all its addresses, IPv4 and IPv6.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from proxy.upstream.discovery.base import MAX_FOUND, MAX_WEIGHT, Found, SourceFailed, http_url
from proxy.upstream.discovery.dns_client import NoRecords, Resolver, ask_srv, system_resolver
from proxy.upstream.discovery.dns_message import BadMessage, Service


class DnsSource:
    """Resolves one name again and again."""

    def __init__(
        self,
        host: str,
        *,
        port: int,
        scheme: str,
        within: float,
        resolver: Callable[[], Resolver] = system_resolver,
    ) -> None:
        self._host = host
        self._port = port
        self._scheme = scheme
        self._within = within
        self._resolver = resolver

    async def find(self) -> Sequence[Found]:
        found = await self._services() if self._host.startswith("_") else await self._addresses()
        if not found or len(found) > MAX_FOUND:
            # A name without addresses is a resolver's bad day more often than a pool without servers.
            raise SourceFailed("no address, or more than a pool may have")
        return found

    async def close(self) -> None:
        pass

    async def _services(self) -> Sequence[Found]:
        try:
            reply = await ask_srv(self._resolver(), self._host, within=self._within)
        except (NoRecords, BadMessage) as error:
            raise SourceFailed(str(error)) from error
        return of_services(reply.services, self._scheme)

    async def _addresses(self) -> Sequence[Found]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._within):
                infos = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SourceFailed(f"not resolved: {type(error).__name__}") from error
        # A link-local address (fe80::1%eth0) is no place for a server, and no host for a URL.
        hosts = dict.fromkeys(host for *_, address in infos if "%" not in (host := str(address[0])))
        return [Found(http_url(host, self._port, self._scheme), server_name=self._host) for host in hosts]


def of_services(services: Sequence[Service], scheme: str) -> list[Found]:
    """The servers of the most preferred priority."""
    best = min((service.priority for service in services), default=0)
    return [
        Found(
            http_url(service.target, service.port, scheme),
            # RFC 2782 gives weight 0 a very small chance; among zeros all are alike.
            weight=min(max(service.weight, 1), MAX_WEIGHT),
        )
        for service in services
        if service.priority == best and service.target  # the target "." says: there is no such service
    ]
