"""HTTP/1.1 read strictly: anything two parsers could read differently is `Malformed`.

Both ends of the probes use it. The scripted upstream judges with it what the
gateway sends, the raw client judges what the gateway answers.
"""

import re
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_HOST = re.compile(rb"[A-Za-z0-9.\-_~%]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")


class Malformed(Exception):
    """Not HTTP/1.1, or HTTP/1.1 that can be read in two ways."""


@dataclass(frozen=True, slots=True)
class Head:
    """A start line and its fields, in their order and case."""

    start: bytes
    fields: Fields
    raw: bytes

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: bytes) -> bytes | None:
        values = self.all(name)
        return values[0] if values else None

    def names(self) -> list[bytes]:
        return [key.lower() for key, _ in self.fields]


@dataclass(slots=True)
class Request:
    """What an upstream was sent: exact bytes, and what they say."""

    head: Head
    method: bytes
    target: bytes
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    raw: bytes = b""
    at: float = 0.0
    connection: int = 0
    nth_on_connection: int = 1


@dataclass(slots=True)
class Response:
    """What a client got. `end`: complete, fin, rst, or silent (still open when we stopped waiting)."""

    head: Head
    version: bytes
    status: int
    reason: bytes
    framing: str = "none"
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    informational: list[Head] = field(default_factory=list)
    end: str = "complete"

    @property
    def is_complete(self) -> bool:
        return self.end == "complete"

    def get(self, name: bytes) -> bytes | None:
        return self.head.get(name)


def parse_head(raw: bytes) -> Head:
    """Split a head that ends with its blank line."""
    lines = raw[:-4].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise Malformed(f"bare line break or NUL in {line!r}")
    return Head(lines[0], [_field(line) for line in lines[1:]], raw)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise Malformed(f"field name in {line!r}")
    if not _VALUE.fullmatch(value):
        raise Malformed(f"field value in {line!r}")
    return name, value.strip(b" \t")


def request_of(head: Head) -> Request:
    matched = _REQUEST_LINE.fullmatch(head.start)
    if matched is None or not _TARGET.fullmatch(matched[2]):
        raise Malformed(f"request line {head.start!r}")
    hosts = head.all(b"host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Malformed(f"host {hosts!r}")
    return Request(head, matched[1], matched[2])


def response_of(head: Head) -> Response:
    matched = _STATUS_LINE.fullmatch(head.start)
    if matched is None:
        raise Malformed(f"status line {head.start!r}")
    return Response(head, matched[1], int(matched[2]), matched[3])


def length_of(head: Head) -> int | None:
    """The content length; several of them, or one beside a transfer coding, are malformed."""
    lengths, codings = head.all(b"content-length"), head.all(b"transfer-encoding")
    if not lengths:
        return None
    if len(lengths) > 1 or codings or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed(f"lengths {lengths!r} with codings {codings!r}")
    return int(lengths[0])


def is_chunked(head: Head) -> bool:
    codings = head.all(b"transfer-encoding")
    if not codings:
        return False
    if [coding.lower() for coding in codings] != [b"chunked"]:
        raise Malformed(f"transfer codings {codings!r}")
    return True


def chunk_size(line: bytes) -> int:
    matched = _CHUNK_SIZE.fullmatch(line)
    if matched is None:
        raise Malformed(f"chunk size {line!r}")
    return int(matched[1], 16)


def trailer(line: bytes) -> tuple[bytes, bytes]:
    return _field(line)


# --- writing ---------------------------------------------------------------


def lines(*parts: bytes | str) -> bytes:
    """A head from its lines, with the blank line."""
    return b"\r\n".join(p.encode("latin-1") if isinstance(p, str) else p for p in parts) + b"\r\n\r\n"


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body of these pieces, finished."""
    return b"".join(chunk(piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def answer(
    body: bytes = b'{"ok":true}', *extra: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json"
) -> bytes:
    """A whole answer with a length."""
    length = b"Content-Length: %d" % len(body)
    return lines(b"HTTP/1.1 " + status, b"Content-Type: " + kind, length, *extra) + body


def sse_head(*extra: bytes) -> bytes:
    return lines(
        b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked", *extra
    )


def post(
    target: bytes = b"/v1/chat/completions",
    body: bytes = b'{"model":"any","messages":[]}',
    *extra: bytes,
    host: bytes = b"gateway.test",
) -> bytes:
    """A whole JSON request."""
    return (
        lines(
            b"POST " + target + b" HTTP/1.1",
            b"Host: " + host,
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            *extra,
        )
        + body
    )


def get(target: bytes = b"/v1/probe", *extra: bytes, host: bytes = b"gateway.test") -> bytes:
    return lines(b"GET " + target + b" HTTP/1.1", b"Host: " + host, *extra)
