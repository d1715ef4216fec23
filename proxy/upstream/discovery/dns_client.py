"""Asks the system's name servers for SRV records, which the standard library cannot.

UDP first, TCP where the answer did not fit. Each question has an unpredictable
number and a port of its own, and only what comes from the server that was asked
counts, so that nobody beside the path can answer for it.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.upstream.discovery.dns_message import BadMessage, Reply, question, read_reply

RESOLV_CONF = Path("/etc/resolv.conf")

# As glibc does it: three servers, two rounds.
MAX_SERVERS = 3
ROUNDS = 2
MAX_SEARCHED = 6

NO_ERROR, NO_NAME = 0, 3


class NoRecords(Exception):
    """Nobody could say; the text says why."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Which servers to ask, and what to append to a name that is not whole."""

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", 53),)
    search: tuple[str, ...] = ()
    ndots: int = 1

    def names(self, name: str) -> tuple[str, ...]:
        """The names to ask for, in order."""
        whole = name.rstrip(".")
        if name.endswith("."):
            return (whole,)
        searched = tuple(f"{whole}.{suffix}" for suffix in self.search)
        return (whole, *searched) if whole.count(".") >= self.ndots else (*searched, whole)


def read_resolver(text: str) -> Resolver:
    """What a resolv.conf says."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and len(servers) < MAX_SERVERS:
            servers.append((words[1], 53))
        elif words[0] in ("search", "domain"):
            search = tuple(word.rstrip(".") for word in words[1 : 1 + MAX_SEARCHED] if word != ".")
        elif words[0] == "options":
            given = [word[6:] for word in words[1:] if word.startswith("ndots:")]
            ndots = next((min(int(number), 15) for number in given if number.isdigit()), ndots)
    return Resolver(tuple(servers) or Resolver().servers, search, ndots)


def system_resolver() -> Resolver:
    """Read anew for each look, because a laptop or a DHCP client changes it."""
    try:
        return read_resolver(RESOLV_CONF.read_text("utf-8", "replace"))
    except OSError:
        return Resolver()


async def ask_srv(resolver: Resolver, name: str, *, within: float) -> Reply:
    """The first reply with records, trying the search list as the resolver has it; raises NoRecords."""
    why = "no such name"
    for whole in resolver.names(name):
        reply = await _ask_servers(resolver.servers, whole, within=within)
        if reply.services:
            return reply
        why = "no such name" if reply.code == NO_NAME else "no SRV records"
    raise NoRecords(why)


async def _ask_servers(servers: Sequence[tuple[str, int]], name: str, *, within: float) -> Reply:
    """The first usable reply, each server having its share of the time, twice."""
    share = within / (len(servers) * ROUNDS)
    why = "no name server answers"
    for server in [*servers] * ROUNDS:
        try:
            async with asyncio.timeout(share):
                reply = await _ask_udp(server, name)
                if reply.is_cut:
                    reply = await _ask_tcp(server, name)
        except TimeoutError:
            continue
        except (OSError, EOFError, BadMessage) as error:
            why = str(error) or type(error).__name__
            continue
        if reply.code in (NO_ERROR, NO_NAME):
            return reply
        why = f"the name server says {reply.code}"
    raise NoRecords(why)


async def _ask_udp(server: tuple[str, int], name: str) -> Reply:
    number = secrets.randbits(16)
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Waiting(number, name, loop), remote_addr=server
    )
    try:
        transport.sendto(question(number, name))
        return await waiting.reply
    finally:
        transport.close()


class _Waiting(asyncio.DatagramProtocol):
    """Waits for the reply to one question; anything else that arrives is noise."""

    def __init__(self, number: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._number, self._name = number, name
        self.reply: asyncio.Future[Reply] = loop.create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            reply = read_reply(data, self._number, self._name)
        except BadMessage:
            return
        if not self.reply.done():
            self.reply.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _ask_tcp(server: tuple[str, int], name: str) -> Reply:
    number = secrets.randbits(16)
    reader, writer = await asyncio.open_connection(*server)
    try:
        query = question(number, name)
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return read_reply(await reader.readexactly(length), number, name)
    finally:
        writer.close()
