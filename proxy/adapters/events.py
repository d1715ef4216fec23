"""What the scanners say about a model's text.

Both scanners (reasoning, tool calls) turn pieces of text into these events, and
the chat translator turns the events into deltas. Indexes count the calls of one
choice from 0. The `text` pieces of one call's `CallArguments`, joined, are a JSON
object.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """Plain content."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text from inside the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call is certain and its name is whole; `id` is unique within the answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next piece of a call's JSON arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is complete: its arguments are a whole JSON object."""

    index: int


Event = Text | Reasoning | CallStart | CallArguments | CallEnd
