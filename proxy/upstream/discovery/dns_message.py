"""DNS messages, as far as a question for SRV records needs them (RFC 1035, 2782, 6891).

Read strictly: a name may only point backwards, so that no message can lead in
circles, and what does not add up is a BadMessage.
"""

import struct
from dataclasses import dataclass

SRV = 33
_OPT = 41
_IN = 1

# What UDP answers may measure without being cut into fragments (DNS flag day, 2020).
UDP_BYTES = 1232

# A pool's worth of records; TCP answers could hold some 2,000.
MAX_RECORDS = 1024

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SRV = struct.Struct("!HHH")


class BadMessage(ValueError):
    """Not a DNS message, or not an answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: how it went, whether it had to be cut, and its SRV records."""

    code: int
    is_cut: bool
    services: tuple[Service, ...]


def question(number: int, name: str) -> bytes:
    """A query for a name's SRV records; raises BadMessage for what is no name."""
    header = _HEADER.pack(number, 0x0100, 1, 0, 0, 1)  # recursion desired, one question, one addition
    edns = b"\0" + _RECORD.pack(_OPT, UDP_BYTES, 0, 0)
    return header + encode_name(name) + _QUESTION.pack(SRV, _IN) + edns


def encode_name(name: str) -> bytes:
    try:
        labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    except UnicodeEncodeError as error:
        raise BadMessage("a name must be ASCII") from error
    if not all(0 < len(label) < 64 for label in labels):
        raise BadMessage("a label must have 1 to 63 bytes")
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(encoded) > 255:
        raise BadMessage("a name must have at most 255 bytes")
    return encoded


def read_reply(message: bytes, number: int, name: str) -> Reply:
    """The answer to `question(number, name)`; raises BadMessage."""
    try:
        return _read(message, number, name)
    except struct.error as error:
        raise BadMessage("the message ends early") from error


def _read(message: bytes, number: int, name: str) -> Reply:
    seen, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if seen != number or not flags & 0x8000:
        raise BadMessage("not an answer to our question")
    if questions != 1 or answers > MAX_RECORDS:
        raise BadMessage("more than was asked for")
    asked, at = read_name(message, _HEADER.size)
    if asked.lower() != name.rstrip(".").lower() or _QUESTION.unpack_from(message, at) != (SRV, _IN):
        raise BadMessage("not an answer to our question")
    is_cut = bool(flags & 0x0200)
    if is_cut:  # what is there may end anywhere; it is asked for again over TCP
        return Reply(flags & 15, True, ())
    at += _QUESTION.size
    services = []
    for _ in range(answers):
        _, at = read_name(message, at)
        kind, network, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if at + length > len(message):
            raise BadMessage("the message ends early")
        if kind == SRV and network == _IN:  # beside it there may be the CNAME that led here
            services.append(_service(message, at, length))
        at += length
    return Reply(flags & 15, False, tuple(services))


def _service(message: bytes, at: int, length: int) -> Service:
    priority, weight, port = _SRV.unpack_from(message, at)
    target, end = read_name(message, at + _SRV.size)
    if end != at + length:
        raise BadMessage("a record is not as long as it says")
    return Service(priority, weight, port, target)


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """The name at a place, and where what follows it begins."""
    labels: list[str] = []
    end: int | None = None
    limit = at  # a pointer must lead before everything that was read of this name
    size = 0
    while True:
        if at >= len(message):
            raise BadMessage("a name ends early")
        length = message[at]
        if length & 0xC0 == 0xC0:
            if at + 1 >= len(message):
                raise BadMessage("a name ends early")
            end = at + 2 if end is None else end
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= limit:
                raise BadMessage("a name points forward")
            limit = at
            continue
        if length & 0xC0:
            raise BadMessage("an unknown kind of label")
        at += 1
        if not length:
            return ".".join(labels), at if end is None else end
        size += length + 1
        label = message[at : at + length]
        if size > 254 or len(label) < length or not label.isascii() or b"." in label:
            raise BadMessage("not a name")
        labels.append(label.decode("ascii"))
        at += length
