"""Answers of our own, as bytes.

`plain_answer` writes a finished `web.Response`; `Sent` is what a handler
returns when it has already written the answer itself.
"""

from http import HTTPStatus

from aiohttp import web

from proxy.wire.http1 import RequestHead


class Sent(web.StreamResponse):
    """The answer is on the wire; nothing is left to write.

    It passes through the middlewares in a response's place, so it must be one,
    but it needs none of what aiohttp's constructor prepares.
    """

    def __init__(self, status: int, *, keeps_alive: bool, is_cut: bool = False) -> None:
        self._status = status
        self.keeps_alive = keeps_alive
        self.is_cut = is_cut

    @property
    def status(self) -> int:
        return self._status

    @property
    def prepared(self) -> bool:
        return True


def plain_answer(response: web.Response, head: RequestHead, *, keep_alive: bool) -> bytes:
    """A whole answer, head and body."""
    body = response.body
    payload = bytes(body) if isinstance(body, bytes | bytearray) else b""
    lines = [
        f"{name}: {value}" for name, value in response.headers.items() if name.lower() != "content-length"
    ]
    return written(
        response.status,
        response.reason,
        lines,
        payload,
        is_head=head.method == b"HEAD",
        minor=head.minor,
        keep_alive=keep_alive,
    )


def written(
    status: int,
    reason: str | None,
    lines: list[str],
    body: bytes,
    *,
    is_head: bool = False,
    minor: int = 1,
    keep_alive: bool,
) -> bytes:
    """Status line, headers and body in one piece."""
    reason = reason if reason is not None else HTTPStatus(status).phrase
    head = [f"HTTP/1.1 {status} {reason}", *lines]
    if status != 204:
        head.append(f"Content-Length: {len(body)}")
    if not keep_alive:
        head.append("Connection: close")
    elif minor == 0:
        head.append("Connection: keep-alive")
    text = "\r\n".join(head) + "\r\n\r\n"
    return text.encode("utf-8", "surrogateescape") + (b"" if is_head or status == 204 else body)
