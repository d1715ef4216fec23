"""Learns from an answer's bytes what it used, beside the path and without changing it.

One meter per answer, chosen by its head. `feed` takes the body as it came over the
wire, less the chunked framing, at any cut; `finish` may be called at any byte, because
answers break off at any byte. What a meter keeps is bounded, and what it costs per
streamed event is a few searches: no JSON is parsed before something worth it is seen.
"""

from typing import Protocol

from msgspec import Struct

from proxy.usage.tokens import Usage


class Metered(Struct, frozen=True, gc=False):
    """What is known about an answer from its body."""

    usage: Usage | None = None
    terminal: bool = False  # the body itself says that it is finished
    error: bool = False  # an error object stands in it
    events: int = 0  # data events, without [DONE]
    deltas: int = 0  # of those, the ones that brought text; worked out only where there is no usage
    text_bytes: int = 0  # of generated text, about; likewise
    tool_calls: int = 0
    response_id: str | None = None


class Meter(Protocol):
    """Follows one answer."""

    @property
    def events(self) -> int:
        """Data events so far; the change from 0 to 1 is the answer's first."""

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> Metered: ...


class OpaqueMeter:
    """For bodies that cannot be read: audio, images, a coding that the standard library lacks."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events = 0

    def feed(self, data: bytes) -> None:
        pass

    def finish(self) -> Metered:
        return Metered()
