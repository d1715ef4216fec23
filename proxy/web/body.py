"""One request's body, taken from the wire only as far as somebody wants it.

Until a handler asks, no more than a socket buffer's worth is kept, so that a
client without a key cannot fill memory. Asked for, it is read whole, because
the model is inside and a second attempt needs it again.
"""

import asyncio
from collections.abc import Callable
from io import BytesIO

from proxy.errors import BadRequest, BodyTooLarge, ProxyError, RequestTimeout
from proxy.wire.chunked import ChunkScanner
from proxy.wire.http1 import BadHead, RequestHead

# What may lie here before a handler has asked for the body: most requests whole.
MAX_UNREAD_BYTES = 256 * 1024

# There is room for a body when a part of it has come, for what a client announces and never sends must not
# fill memory: a thirty-second, or above this size, which few prompts have, a quarter.
MAX_USUAL_BYTES = 512 * 1024


class RequestBody:
    """Fed by the connection with `feed`, awaited by a handler with `read`."""

    __slots__ = (
        "_content",
        "_failure",
        "_left",
        "_limit",
        "_on_wanted",
        "_room",
        "_scanner",
        "_size",
        "_waiter",
        "is_complete",
        "is_wanted",
    )

    def __init__(self, head: RequestHead, on_wanted: Callable[[], None]) -> None:
        self._content = BytesIO()  # hands out what was written without copying it: a body is held once
        self._size = 0
        self._room: memoryview | None = None  # the end of the content that has yet to be read
        self._limit: int | None = None
        self._scanner = ChunkScanner() if head.chunked else None
        self._left = head.content_length or 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: ProxyError | None = None
        self._on_wanted = on_wanted
        self.is_wanted = False
        self.is_complete = not head.has_body

    @property
    def is_full(self) -> bool:
        """Nobody has asked yet, and enough is here."""
        return not self.is_wanted and self._size > MAX_UNREAD_BYTES

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; return what came behind it."""
        if self._scanner is not None:
            return self._feed_chunked(self._scanner, data)
        if len(data) >= self._left:
            data, rest = (data, b"") if len(data) == self._left else (data[: self._left], data[self._left :])
            self._keep(data)
            self._complete()
            return rest
        self._keep(data)
        return b""

    def room(self) -> memoryview | None:
        """Where the rest of the body is to be read, if somebody waits for it: `filled` tells how much was."""
        if self._room is None and self._waiter is not None:
            self._make_room()
        return self._room

    @property
    def will_have_room(self) -> bool:
        """Somebody waits for the rest, and there is room for it when a little more has come."""
        return self._waiter is not None and 0 < self._left <= MAX_USUAL_BYTES - self._size

    def filled(self, size: int) -> None:
        """So many bytes of the room are the body's."""
        room = self._room
        self._size += size
        self._left -= size
        self._room = room[size:] if room is not None and self._left else None
        if not self._left:
            self._complete()

    async def read(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge above `limit` bytes, or what broke it."""
        self._limit = limit
        if self._size + self._left > limit:
            self._failure = self._failure or _too_large()
        self.is_wanted = True
        if self._failure is None and not self.is_complete:
            self._on_wanted()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        return self._content.getvalue()

    async def readany(self) -> bytes:
        """aiohttp's view of a payload, for the handlers that use `request.json()`."""
        body = await self.read(self._limit or MAX_UNREAD_BYTES)
        self._content = BytesIO()
        return body

    def fail(self, failure: ProxyError) -> None:
        """The body will never be whole."""
        if self._failure is None and not self.is_complete:
            self._failure = failure
            self._wake()

    def time_out(self) -> None:
        self.fail(RequestTimeout("The request body did not arrive in time."))

    def _keep(self, data: bytes) -> None:
        if self._failure is not None:
            return
        self._content.write(data)
        self._size += len(data)
        if self._scanner is None:
            self._left -= len(data)
        if self._limit is not None and self._size > self._limit:
            self._content = BytesIO()
            self.fail(_too_large())

    def _make_room(self) -> None:
        size = self._size + self._left
        needed = size // (32 if size <= MAX_USUAL_BYTES else 4)
        if not self._left or self._failure is not None or self._size < needed:
            return
        self._content.seek(size - 1)
        self._content.write(b"\0")
        self._room = self._content.getbuffer()[self._size :]

    def _feed_chunked(self, scanner: ChunkScanner, data: bytes) -> bytes:
        try:
            scanner.feed(data)
        except BadHead:
            self.fail(BadRequest("The request body's chunked coding is malformed."))
            return b""
        if scanner.payload:
            self._keep(scanner.payload)
        if scanner.done:
            self._complete()
        return scanner.rest

    def _complete(self) -> None:
        self.is_complete = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Content:
    """The payload of a request that is here already, or has none, as aiohttp sees it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def readany(self) -> bytes:
        content, self._content = self._content, b""
        return content


def whole(content: bytes, limit: int) -> bytes:
    """A body that came in one piece, unless it is too large."""
    if len(content) > limit:
        raise _too_large()
    return content


def _too_large() -> BodyTooLarge:
    return BodyTooLarge("The request body is larger than this server allows.")
