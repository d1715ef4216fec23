"""Asks an upstream for the usage of a stream whose client did not, and hides the answer again.

Most clients don't send `stream_options.include_usage`, and most engines count only
then. The request gets those few bytes more; of the answer, the one extra event (no
choices, a usage object) is taken out, so that the client sees what it would have seen.
Usage that an engine writes into other events stays where it is.

What else stands in the extra event alone would have stood in the last one before it (vLLM's
`system_fingerprint`, llama-server's `timings`) and is put there, so an event that finishes
a choice waits for the one behind it, which engines send at once.
"""

import re
from collections.abc import Mapping
from json import JSONDecoder
from typing import Any

import orjson

from proxy.wire.openai import Json

_MEMBER = b'"stream_options":{"include_usage":true}'
_KEY = b'"stream_options"'
_BLANKS = b" \t\r\n"

# The same key may stand in a tool's schema or in a message's metadata; after so many that
# are not the request's own, the request goes out as it is.
MAX_CANDIDATES = 8

# Known options are a handful of booleans.
MAX_OPTIONS_BYTES = 4096

# The extra event has some 300 bytes; 4 KiB leave room for every detail an engine may count.
# A larger event passes, and no more than this of an unfinished one is held back.
MAX_EXTRA_BYTES = 4096

_PATHS = (b"/chat/completions", b"/completions")

_USAGE = b'"usage"'
_OPTION = re.compile(rb'("include_usage"\s*:\s*)(?:false|null)(?=[\s,}])')
_LINE_END = rb"(?>\r\n|\n|\r)"
_EVENT_END = re.compile(_LINE_END + _LINE_END)
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_DATA = re.compile(rb"(?:^|[\r\n])data: ?([^\r\n]*)")


def takes_stream_options(path: bytes) -> bool:
    """Whether requests to this path (no query) may carry `stream_options`."""
    return path.endswith(_PATHS)


def ask_for_usage(body: bytes, members: Mapping[str, Any]) -> bytes | None:
    """The body of a streaming request that asks for usage; None where it does, or must stay as it is.

    `members` are the body's own `stream_options`, if it has any, parsed.
    """
    if "stream_options" in members:
        return _with_option(body)
    end = len(body.rstrip(_BLANKS)) - 1
    if body[end : end + 1] != b"}":
        return None
    separator = b"" if body[:end].rstrip(_BLANKS).endswith(b"{") else b","
    return body[:end] + separator + _MEMBER + body[end:]


def _with_option(body: bytes) -> bytes | None:
    at = len(body)
    for _ in range(MAX_CANDIDATES):
        at = body.rfind(_KEY, 0, at)
        if at < 0:
            return None
        if _is_own_member(body, at):
            return _edited(body, at)
    return None


def _is_own_member(body: bytes, at: int) -> bool:
    """Whether the key at `at` is the outermost object's: what follows it then closes just that."""
    if body[:at].rstrip(_BLANKS)[-1:] not in (b"{", b","):
        return False
    try:
        orjson.loads(b"{" + body[at:])
    except orjson.JSONDecodeError:
        return False
    return True


def _edited(body: bytes, at: int) -> bytes | None:
    colon = body.index(b":", at)
    start = len(body) - len(body[colon + 1 :].lstrip(_BLANKS))
    try:
        # As Latin-1 every byte is one character, so that places stay what they are.
        options, length = JSONDecoder().raw_decode(body[start : start + MAX_OPTIONS_BYTES].decode("latin-1"))
    except ValueError:
        return None
    end = start + length
    if options is None:
        return body[:start] + b'{"include_usage":true}' + body[end:]
    if not isinstance(options, dict):
        return None
    if "include_usage" not in options:
        return body[: end - 1] + (b"," if options else b"") + b'"include_usage":true' + body[end - 1 :]
    if options["include_usage"] not in (False, None) or body.count(b'"include_usage"', start, end) > 1:
        return None
    edited, count = _OPTION.subn(rb"\1true", body[start:end])
    return body[:start] + edited + body[end:] if count else None


class UsageHider:
    """Bytes of a stream in, the same bytes out, less the event that was only sent because we asked.

    Holds back an unfinished event until it is whole or too large to be that event, and
    the last event of a choice until the next one.
    """

    __slots__ = ("_finished", "_held", "_inside", "_late_lf", "hidden")

    def __init__(self) -> None:
        self.hidden = 0
        self._held = b""
        self._finished = b""  # the event that finished a choice, if it came last
        self._inside = False  # in an event that is too large to be hidden
        self._late_lf: bytes | None = None  # what is passed on of an LF that belongs to a CR before it

    def feed(self, data: bytes) -> bytes:
        if (
            data[-2:] == b"\n\n"
            and not self._held
            and not self._finished
            and not self._inside
            and self._late_lf is None
            and data.find(_USAGE) < 0
            and _FINISHED.search(data) is None
        ):
            return data
        return self._sift(data) if data else b""

    def finish(self) -> bytes:
        """What was held back at the end: an answer's cut end, or the extra event without a blank line."""
        held, self._held = self._held, b""
        return self._kept(held) + self._released()

    def _sift(self, data: bytes) -> bytes:
        kept, at = [], 0
        if self._late_lf is not None and data[:1] == b"\n":
            kept.append(self._with_late_lf(self._late_lf))
            data = data[1:]
        self._late_lf = None
        data, self._held = self._held + data, b""
        for end in _EVENT_END.finditer(data):
            block, at, hidden = data[at : end.end()], end.end(), self.hidden
            kept.append(block if self._inside else self._kept(block))
            if at == len(data) and data[-1:] == b"\r":
                self._late_lf = b"\n" if self.hidden == hidden else b""
            self._inside = False
        kept.append(self._begun(data[at:]))
        return b"".join(kept)

    def _with_late_lf(self, late_lf: bytes) -> bytes:
        """It goes where the CR before it went."""
        if not self._finished:
            return late_lf
        self._finished += late_lf
        return b""

    def _begun(self, rest: bytes) -> bytes:
        """Of an unfinished event, what may pass: all but its line ends, once it is too large."""
        if not self._inside and len(rest) <= MAX_EXTRA_BYTES:
            self._held = rest
            return b""
        self._inside = True
        passing = rest.rstrip(b"\r\n")
        self._held = rest[len(passing) :]
        return self._released() + passing

    def _kept(self, block: bytes) -> bytes:
        """What may pass now that this block is there; of the extra event the blank lines before it."""
        if len(block) <= MAX_EXTRA_BYTES and block.find(_USAGE) >= 0:
            extra = _extra_in(block)
            if extra is not None:
                self.hidden += 1
                return self._released(extra) + block[: len(block) - len(block.lstrip(b"\r\n"))]
        before = self._released()
        if len(block) > MAX_EXTRA_BYTES or _FINISHED.search(block) is None:
            return before + block
        self._finished = block
        return before

    def _released(self, extra: Json | None = None) -> bytes:
        """The event that waited, with what would have stood in it if nobody had asked for the extra one."""
        block, self._finished = self._finished, b""
        return _completed(block, extra) if block and extra else block


def _event_in(block: bytes) -> Json | None:
    try:
        event = orjson.loads(b"\n".join(_DATA.findall(block)))
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _extra_in(block: bytes) -> Json | None:
    """The block's event, if it is the extra one."""
    event = _event_in(block)
    if event is None or event.get("choices") != [] or not isinstance(event.get("usage"), dict):
        return None
    return event


def _completed(block: bytes, extra: Json) -> bytes:
    event, lines = _event_in(block), list(_DATA.finditer(block))
    if event is None or len(lines) != 1 or not lines[0][1].endswith(b"}"):
        return block
    missing = {name: value for name, value in extra.items() if name not in event and name != "usage"}
    if not missing:
        return block
    at = lines[0].end(1) - 1
    return block[:at] + b"," + orjson.dumps(missing)[1:-1] + block[at:]
