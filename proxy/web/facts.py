"""What a request's head says to the gateway itself, worked out once for all requests that begin alike."""

import re
from typing import NamedTuple, Protocol

from proxy.access.masking import masked
from proxy.metrics import path_label
from proxy.wire.http1 import RequestHead

# What a client chose itself is cut to this, so that a line stays a line.
MAX_CLIENT_TEXT = 200
MAX_METHOD = 32

# What a client may choose as its request's id: enough for UUIDs and trace ids, nothing that needs escaping.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")

_ID, _FORWARDED_FOR, _ORIGIN = b"x-request-id", b"x-forwarded-for", b"origin"
_READ = frozenset((_ID, _FORWARDED_FOR, _ORIGIN))


class Paths(Protocol):
    """What the configuration says about paths; a Runtime knows."""

    def forwards(self, target: bytes) -> bool: ...
    def skips_key(self, target: bytes) -> bool: ...


class Facts(NamedTuple):
    """`path` is whole but for keys in it; `shown_path` is the same as short text that no terminal obeys."""

    method: str
    path: str
    shown_path: str
    label: str  # the path in metrics
    given_id: str | None
    forwarded_for: bytes | None
    origin: str | None  # the page it comes from, as browsers say
    is_forwarded: bool  # the configuration lets requests to this path go to an upstream
    skips_key: bool  # and without a key

    @classmethod
    def of(cls, head: RequestHead, runtime: Paths) -> "Facts":
        """The facts of a head that this runtime has read."""
        facts: Facts | None = head.memo.get(cls)
        if facts is None:
            common = _common(head)
            if common is not None:
                facts = head.memo[cls] = cls.of(common, runtime)
                return facts
            label = path_label(head.path)
            path = head.path if label.encode() == head.path else _without_keys(head)
            origin = head.get(_ORIGIN)
            facts = head.memo[cls] = cls(
                method=head.method.decode("ascii"),
                path=path.decode("utf-8", "surrogateescape"),
                shown_path=client_text(path),
                label=label,
                given_id=_given_id(head),
                forwarded_for=_joined(head, _FORWARDED_FOR),
                origin=origin.decode("latin-1") if origin is not None else None,
                is_forwarded=runtime.forwards(head.target),
                skips_key=runtime.skips_key(head.target),
            )
        return facts


def _common(head: RequestHead) -> RequestHead | None:
    """What the head has in common with others, where the facts are in that."""
    common, own = head.common, head.own
    if common is None or own is None or own.lower in _READ or common.get(_ID) is not None:
        return None
    return common if path_label(common.path).encode() == common.path else None


def client_text(raw: bytes) -> str:
    """Bytes of a client's choosing as short text that no terminal obeys."""
    return printable(raw[:MAX_CLIENT_TEXT].decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    if text.isprintable() and '"' not in text:
        return text
    return "".join(c if c.isprintable() and c != '"' else f"\\u{ord(c):04x}" for c in text)


def _without_keys(head: RequestHead) -> bytes:
    return masked(head.path, ((line.lower, line.value) for line in head.lines))


def _given_id(head: RequestHead) -> str | None:
    """A client's own id, if it may stand in logs: it is short and plain, and not its key once more."""
    given = head.get(_ID)
    if given is None or not _REQUEST_ID.fullmatch(given):
        return None
    return None if repeats_another(head, given) else given.decode("ascii")


def repeats_another(head: RequestHead, given: bytes) -> bool:
    """Whether a request id is part of another header, which may be the one with the key."""
    own = head.own
    if own is not None and head.common is not None and own.lower != _ID:
        return own.value.find(given) >= 0 or repeats_another(head.common, given)
    others: bytes | None = head.memo.get(repeats_another)
    if others is None:
        values = [line.value for line in head.lines if line.lower != _ID]
        others = head.memo[repeats_another] = b"\n".join(values)  # which no value holds
    return others.find(given) >= 0  # `in` asks for a number first, which takes four times as long


def _joined(head: RequestHead, lower: bytes) -> bytes | None:
    return b",".join(line.value for line in head.lines if line.lower == lower) or None
