"""HTTP/1 heads, read strictly and without touching a byte.

A head is refused when two parsers could read it differently: RFC 9112 leaves
room for leniency (bare LF, folded lines, lists of lengths, spaces before the
colon), and every such freedom has been somebody's request smuggling. What is
accepted keeps its raw lines, so that it can be passed on exactly as it came.
"""

import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotAllowed,
    TargetTooLong,
    UnsupportedVersion,
)

# nginx allows 8 KiB for a request line, Go 1 MiB for the whole head; an OpenAI
# path is under 100 bytes, so 16 KiB is generous and still cheap to buffer.
MAX_TARGET_BYTES = 16 * 1024

# The busiest real client (Codex) sends 22 header lines, browsers up to 40.
MAX_HEADER_LINES = 256

# Lines up to this size are remembered; so many of them hold at most 1 MiB. A server's Date is a new
# one each second, so they are all there after half an hour.
MAX_KNOWN_LINE_BYTES = 256
MAX_KNOWN_LINES = 2048

# RFC 9110 names none; 2**63 has 19 digits, so 18 digits never overflow anybody's integer.
MAX_LENGTH_DIGITS = 18

# What others may keep with a head: some values and look-ups, and its form for as many endpoints as
# there is room. A remembered head of 0.6 KiB holds at most 9 KiB so.
MAX_MEMO = 16

# Of a header that nobody has asked a head for. A KeyError in its place costs 3 µs where this is compiled.
_UNASKED: Any = object()

_CONTROL = bytes(c for c in range(0x20) if c not in b"\t\r\n") + b"\x7f"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HOST = re.compile(
    rb"(?:[A-Za-z0-9\-._~!$&'()*+;=%]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9\-._~]+)?\])(?::[0-9]{1,5})?"
)
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)(.*)", re.DOTALL)


class Kind(IntEnum):
    """What a header line means to a proxy."""

    PLAIN = 0
    HOP = 1  # ends at this connection (RFC 9110, 7.6.1, and those that older software treats so)
    CONNECTION = 2
    LENGTH = 3
    CODING = 4
    HOST = 5
    EXPECT = 6
    TRAILER = 7


# What is asked of every line. CPython 3.11 takes 0.1 µs to find a member of an enumeration.
PLAIN, CONNECTION, LENGTH, CODING, HOST = Kind.PLAIN, Kind.CONNECTION, Kind.LENGTH, Kind.CODING, Kind.HOST

_KINDS = {
    b"connection": Kind.CONNECTION,
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
    b"host": Kind.HOST,
    b"expect": Kind.EXPECT,
    b"trailer": Kind.TRAILER,
    b"keep-alive": Kind.HOP,
    b"proxy-connection": Kind.HOP,
    b"proxy-authenticate": Kind.HOP,
    b"proxy-authorization": Kind.HOP,
    b"te": Kind.HOP,
    b"upgrade": Kind.HOP,
}


class BadHead(ValueError):
    """A head or a framing that must not be relayed; the text says why, without quoting it."""


class HeaderLine(NamedTuple):
    """One header line: its meaning, its name in lower case, and its bytes as they came."""

    kind: Kind
    lower: bytes
    name: bytes
    value: bytes
    raw: bytes


@dataclass(slots=True)
class RequestHead:
    """A request's head. `minor` is the 0 or 1 of HTTP/1.x.

    One head may serve many requests (see head_memory), so nobody changes it. In
    `memo` others keep what they worked out from it, under keys of their own.

    Heads that differ in one line only, the one with the key, have a `common` one (see
    common_heads), which lacks that line's value. What does not depend on it may be
    worked out from there, and kept there for all of them; `own` is this head's line.
    """

    method: bytes
    target: bytes
    minor: int
    lines: list[HeaderLine]
    dropped: frozenset[bytes]  # lower-case names that the Connection header claims for this hop
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    expects_continue: bool = False
    path: bytes = b""  # the target without its query
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    common: "RequestHead | None" = field(default=None, init=False, repr=False, compare=False)
    own: HeaderLine | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def with_length(self, length: int) -> "RequestHead":
        """The same head over a body of another length; `lines` still hold the old one."""
        head = self._with(self.lines, length)
        head.memo, head.common, head.own = self.memo, self.common, self.own
        return head

    def with_line(self, at: int, line: HeaderLine) -> "RequestHead":
        """The same head but for the line at this place, which neither frames nor drops anything."""
        lines = self.lines.copy()
        lines[at] = line
        head = self._with(lines, self.content_length)
        head.common, head.own = self, line
        return head

    def _with(self, lines: list[HeaderLine], length: int | None) -> "RequestHead":
        return RequestHead(
            self.method,
            self.target,
            self.minor,
            lines,
            self.dropped,
            length,
            self.chunked,
            self.keep_alive,
            self.expects_continue,
            self.path,
        )

    def get(self, lower: bytes) -> bytes | None:
        """The first value of the header with this lower-case name; not for Content-Length."""
        value = self.memo.get(lower, _UNASKED)
        if value is _UNASKED:
            value = self.memo[lower] = self._first(lower)
        return value  # type: ignore[no-any-return]  # others keep other things beside it

    def _first(self, lower: bytes) -> bytes | None:
        if self.common is None or self.own is None or self.own.lower == lower:
            return _first_value(self.lines, lower)
        return self.common.get(lower)


def _first_value(lines: list[HeaderLine], lower: bytes) -> bytes | None:
    for line in lines:
        if line.lower == lower:
            return line.value
    return None


class Framing(IntEnum):
    """How the end of an answer's body is known."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


@dataclass(slots=True)
class AnswerHead:
    """An upstream answer's head. Shared and not to be changed, as a RequestHead; `memo` likewise."""

    minor: int
    status: int
    reason: bytes
    lines: list[HeaderLine]
    dropped: frozenset[bytes]
    framing: Framing
    length: int = 0
    keep_alive: bool = True
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_length(self, length: int) -> "AnswerHead":
        """The same head over a body of another length; `lines` still hold the old one."""
        head = AnswerHead(
            self.minor,
            self.status,
            self.reason,
            self.lines,
            self.dropped,
            self.framing,
            length if self.framing is Framing.LENGTH else self.length,
            self.keep_alive,
        )
        head.memo = self.memo
        return head

    def get(self, lower: bytes) -> bytes | None:
        """The first value of the header with this lower-case name; not for Content-Length."""
        value = self.memo.get(lower, _UNASKED)
        if value is _UNASKED:
            value = self.memo[lower] = _first_value(self.lines, lower)
        return value  # type: ignore[no-any-return]  # others keep other things beside it


def parse_request_head(head: bytes) -> RequestHead:
    """Read a request head, blank line included; raises a ProxyError that says what is wrong."""
    try:
        lines = _split(head)
        method, target, minor = _request_line(lines[0])
        headers, dropped = _header_lines(lines)
        request = RequestHead(method, target, minor, headers, dropped)
        _frame_request(request)
    except BadHead as exc:
        raise BadRequest(str(exc)) from exc
    return request


def parse_answer_head(head: bytes, *, method: bytes) -> AnswerHead:
    """Read an answer's head, blank line included; raises BadHead."""
    lines = _split(head)
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise BadHead("malformed status line")
    headers, dropped = _header_lines(lines)
    minor = match[1] == b"1"
    answer = AnswerHead(int(minor), int(match[2]), match[3] or b"", headers, dropped, Framing.CLOSE)
    _frame_answer(answer, method)
    return answer


def _split(head: bytes) -> list[bytes]:
    breaks = head.count(b"\r\n")
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise BadHead("A line does not end with CR LF.")
    if len(head.translate(None, _CONTROL)) != len(head):
        raise BadHead("A control character stands in the head.")
    return head[:-4].split(b"\r\n")


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadHead("The request line is malformed.")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise UnsupportedVersion("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if len(target) > MAX_TARGET_BYTES:
        raise TargetTooLong("The request target is too long.")
    if method == b"CONNECT":
        raise MethodNotAllowed("CONNECT is not supported.")
    if b"#" in target:
        raise BadHead("The request target holds a fragment.")
    return method, target, int(minor)


def classify(name: bytes) -> tuple[Kind, bytes]:
    """What a header's name means, and its lower case; raises BadHead."""
    return _known_name(name) if len(name) <= MAX_KNOWN_LINE_BYTES else _classified(name)


def _classified(name: bytes) -> tuple[Kind, bytes]:
    if not _TOKEN.fullmatch(name):
        raise BadHead("A header name is malformed.")
    lower = name.lower()
    return _KINDS.get(lower, Kind.PLAIN), lower


# The names clients and servers use, with room for a few hundred odd ones.
_known_name = lru_cache(maxsize=2048)(_classified)


_NOTHING: frozenset[bytes] = frozenset()


def _header_lines(lines: list[bytes]) -> tuple[list[HeaderLine], frozenset[bytes]]:
    if len(lines) > MAX_HEADER_LINES:
        raise HeadTooLarge("There are too many header lines.")
    headers: list[HeaderLine] = []
    tokens: list[bytes] = []
    for raw in lines[1:]:
        line = _known_line(raw) if len(raw) <= MAX_KNOWN_LINE_BYTES else read_line(raw)
        if line.kind is CONNECTION:
            tokens += line.value.split(b",")
        headers.append(line)
    return headers, frozenset(token.strip(b" \t").lower() for token in tokens) if tokens else _NOTHING


def read_line(raw: bytes) -> HeaderLine:
    """One header line, without its line end; raises BadHead."""
    name, colon, value = raw.partition(b":")
    if not colon:
        raise BadHead("A header line has no colon.")
    kind, lower = classify(name)
    return HeaderLine(kind, lower, name, value.strip(b" \t"), raw)


# A client repeats all its lines but a few with every request: 13 look-ups of
# 0.1 µs instead of 13 times 0.7 µs.
_known_line = lru_cache(maxsize=MAX_KNOWN_LINES)(read_line)


def _frame_request(request: RequestHead) -> None:
    length, coding, hosts = None, None, 0
    for line in request.lines:
        kind = line.kind
        if kind is PLAIN:
            continue
        if kind is LENGTH:
            length = _length(line.value, seen=length)
        elif kind is CODING:
            coding = _coding(line.value, seen=coding, minor=request.minor)
        elif kind is HOST:
            hosts += 1
            _check_host(line.value)
        elif kind is Kind.EXPECT:
            request.expects_continue = _expectation(line.value, request.minor)
    if hosts > 1 or (hosts == 0 and request.minor):
        raise BadHead("Exactly one Host header is needed.")
    if length is not None and coding is not None:
        raise BadHead("Content-Length and Transfer-Encoding exclude each other.")
    request.content_length, request.chunked = length, coding is not None
    request.keep_alive = _keeps_alive(request.dropped, request.minor)
    if request.target[:1] != b"/":
        request.target = _origin_form(request)
    request.path = request.target.partition(b"?")[0]


def _frame_answer(answer: AnswerHead, method: bytes) -> None:
    length, coding = None, None
    for line in answer.lines:
        kind = line.kind
        if kind is PLAIN:
            continue
        if kind is LENGTH:
            length = _length(line.value, seen=length)
        elif kind is CODING:
            coding = _coding(line.value, seen=coding, minor=answer.minor)
    if length is not None and coding is not None:
        raise BadHead("content-length beside transfer-encoding")
    answer.keep_alive = _keeps_alive(answer.dropped, answer.minor)
    if method == b"HEAD" or answer.status in (204, 304) or answer.status < 200:
        answer.framing = Framing.NONE
    elif coding is not None:
        answer.framing = Framing.CHUNKED
    elif length is not None:
        answer.framing, answer.length = Framing.LENGTH, length


def _length(value: bytes, *, seen: int | None) -> int:
    if seen is not None:
        raise BadHead("There are several Content-Length headers.")
    if not is_length(value):
        raise BadHead("The Content-Length is malformed.")
    return int(value)


def is_length(value: bytes) -> bool:
    """Whether this is a Content-Length's value in the only form that all parsers read alike."""
    return value.isdigit() and len(value) <= MAX_LENGTH_DIGITS and (value[:1] != b"0" or len(value) == 1)


def _coding(value: bytes, *, seen: bytes | None, minor: int) -> bytes:
    if seen is not None or value.lower() != b"chunked" or not minor:
        raise BadHead("The only Transfer-Encoding understood is chunked, once, in HTTP/1.1.")
    return value


def _check_host(value: bytes) -> None:
    if not _HOST.fullmatch(value):
        raise BadHead("The Host header is malformed.")


def _expectation(value: bytes, minor: int) -> bool:
    if value.lower() != b"100-continue":
        raise ExpectationFailed("The only expectation met here is 100-continue.")
    return bool(minor)  # RFC 9110, 10.1.1: ignored in HTTP/1.0


def _keeps_alive(tokens: frozenset[bytes], minor: int) -> bool:
    if b"close" in tokens:
        return False
    return bool(minor) or b"keep-alive" in tokens


def _origin_form(request: RequestHead) -> bytes:
    """RFC 9112, 3.2: absolute-form names the same host as the Host header, or is refused."""
    if request.target == b"*" and request.method == b"OPTIONS":
        return request.target
    match = _ABSOLUTE.fullmatch(request.target)
    if match is None:
        raise BadHead("The request target is malformed.")
    authority, rest = match.groups()
    host = request.get(b"host")
    if host is None or not _HOST.fullmatch(authority) or authority.lower() != host.lower():
        raise BadHead("The request target and the Host header differ.")
    return rest if rest[:1] == b"/" else b"/" + rest
