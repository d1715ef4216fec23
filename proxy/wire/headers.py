"""The heads we send, made of the raw lines that came.

Everything goes through as it stands, in its order, case and spacing, but for
what belongs to one connection only (RFC 9110, 7.6.1), the Host, and the
client's credential, which no upstream may see.
"""

from collections.abc import Iterable

from proxy.wire.http1 import (
    CODING,
    HOST,
    LENGTH,
    MAX_MEMO,
    PLAIN,
    AnswerHead,
    Framing,
    HeaderLine,
    Kind,
    RequestHead,
)

# Stands where a length is filled in; no head that was read can hold it.
_HOLE = b"\0"

_Made = tuple[bytes, bytes]


class RequestRewrite:
    """How one endpoint's requests differ from the client's; made once, used for each request.

    `host` replaces the Host header's value, `replaced` (lower case) names the
    header lines to leave out, `added` are whole lines to append.
    """

    __slots__ = ("_added", "_dropped", "_host", "_prefix")

    def __init__(
        self,
        *,
        host: bytes,
        prefix: bytes = b"",
        replaced: Iterable[bytes] = (),
        added: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        extra = tuple(added)
        self._host = host
        self._prefix = prefix
        self._dropped = frozenset(replaced) | {name.lower() for name, _ in extra}
        self._added = [name + b": " + value for name, value in extra]

    def head(self, request: RequestHead, *, body_length: int) -> bytes:
        """The request head to send; `body_length` bytes of body follow it, whatever the client's framing."""
        made: _Made | None = request.memo.get(self)
        if made is None:
            made = self._made(request)
            if len(request.memo) < MAX_MEMO:
                request.memo[self] = made
        before, after = made
        return b"%b%d%b" % (before, body_length, after) if after else before

    def _made(self, request: RequestHead) -> _Made:
        """As `_make`, once for all heads that differ in a dropped line alone."""
        common, own = request.common, request.own
        if common is None or own is None or own.lower not in self._dropped:
            return self._make(request)
        made: _Made | None = common.memo.get(self)
        if made is None:
            made = self._make(common)
            if len(common.memo) < MAX_MEMO:
                common.memo[self] = made
        return made

    def _make(self, request: RequestHead) -> _Made:
        """The head up to the digits of its length, and behind them; the latter empty where it has none."""
        gone = self._dropped | request.dropped if request.dropped else self._dropped
        lines = [request.method + b" " + self._prefix + request.target + b" HTTP/1.1"]
        has_host = False
        for line in request.lines:
            kind = line.kind
            if kind is PLAIN:
                if line.lower not in gone:
                    lines.append(line.raw)
            elif kind is HOST:
                has_host = True
                lines.append(line.name + b": " + self._host)
            elif kind is LENGTH:
                lines.append(_with_hole(line))
            elif kind is CODING:
                lines.append(b"Content-Length: " + _HOLE)
        if not has_host:
            lines.insert(1, b"Host: " + self._host)
        lines += self._added
        lines.append(b"\r\n")
        before, _, after = b"\r\n".join(lines).partition(_HOLE)
        return before, after


def _with_hole(line: HeaderLine) -> bytes:
    """A Content-Length line without its digits, spaced as it came."""
    at = line.raw.rindex(line.value)
    return line.raw[:at] + _HOLE + line.raw[at + len(line.value) :]


def answer_head(
    answer: AnswerHead,
    *,
    passes_chunks: bool,
    authors_chunks: bool,
    keeps_length: bool = True,
    connection: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    """The head to send downstream for an upstream's answer.

    `passes_chunks`: the upstream's own chunked coding goes through as it is;
    `authors_chunks`: we frame a body that had no end of its own; `keeps_length`:
    the body is the upstream's; `connection` is what to say of ours; `extra` are
    whole lines, each with its CR LF.
    """
    form = passes_chunks, authors_chunks, keeps_length, connection
    made: _Made | None = answer.memo.get(form)
    if made is None:
        made = answer.memo[form] = _answer_form(answer, *form)
    before, after = made
    if after:
        return b"%b%d%b%b\r\n" % (before, answer.length, after, extra)
    return before + extra + b"\r\n"


def _answer_form(
    answer: AnswerHead, passes_chunks: bool, authors_chunks: bool, keeps_length: bool, connection: bytes
) -> _Made:
    """The lines up to the digits of its length, and behind them; the latter empty where it has none."""
    lines = [b"HTTP/1.1 %d %b" % (answer.status, answer.reason)]
    dropped = answer.dropped
    for line in answer.lines:
        kind = line.kind
        if kind is PLAIN or kind is Kind.EXPECT or kind is HOST:
            if line.lower not in dropped:
                lines.append(line.raw)
        elif kind is LENGTH:
            if keeps_length:
                # Where no body follows (HEAD, 304) the line says what there would be.
                lines.append(_with_hole(line) if answer.framing is Framing.LENGTH else line.raw)
        elif (kind is CODING or kind is Kind.TRAILER) and passes_chunks:
            lines.append(line.raw)
    if authors_chunks:
        lines.append(b"Transfer-Encoding: chunked")
    if connection:
        lines.append(b"Connection: " + connection)
    lines.append(b"")
    before, _, after = b"\r\n".join(lines).partition(_HOLE)
    return before, after


def interim_head(answer: AnswerHead) -> bytes:
    """A 1xx answer to pass on."""
    kept = [line.raw for line in answer.lines if line.kind is PLAIN and line.lower not in answer.dropped]
    return b"\r\n".join([b"HTTP/1.1 %d %b" % (answer.status, answer.reason), *kept, b"\r\n"])
