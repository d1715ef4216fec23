"""A connected socket, or the last address's error."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any


async def addresses(
    loop: asyncio.AbstractEventLoop, host: str, port: int
) -> Sequence[tuple[int, int, int, str, tuple[Any, ...]]]:
    """What the resolver says, in its order; raises OSError."""
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 bytes
        raise OSError("not a host name") from error


async def connected_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Try the host's addresses in the order the resolver gives them; the last error counts."""
    failure: OSError = OSError(f"no address for {host}")
    for family, kind, protocol, _, address in await addresses(loop, host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
