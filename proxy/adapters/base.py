"""What an adapter is, seen from the floor that uses it.

A model's adapters are put together once, from its configuration. For each
request they make a plan: nothing to do, so that bytes pass untouched, or a
translation, which rewrites the parsed request and then the answer, whether that
comes as a stream or as one body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from proxy.wire.openai import Json

Emit = Literal["reasoning_content", "reasoning", "both", "strip", "keep"]
EchoedReasoning = Literal["auto", "reasoning_content", "reasoning", "strip", "text"]

# Cryptographically random bytes; `secrets.token_bytes` fits.
Chance = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallOptions:
    """How a model writes tool calls, and how it hears of the tools."""

    format: str = "auto"
    mode: Literal["template", "prompt"] = "template"
    trigger: str | None = None
    # The text of the template that replaces our own prompt.
    prompt: str | None = None
    unknown_tools: Literal["forward", "text"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningOptions:
    """How a model marks its thinking, and where clients want it."""

    format: str | None = None
    emit: Emit = "reasoning_content"
    start_in_reasoning: bool | None = None
    # What becomes of the thinking that clients send back with earlier answers.
    history: EchoedReasoning = "auto"


@dataclass(slots=True)
class Counts:
    """What happened in one answer, or in many."""

    calls: int = 0
    unknown: int = 0
    repaired: int = 0
    dropped: int = 0
    failures: int = 0

    def add(self, other: "Counts") -> None:
        self.calls += other.calls
        self.unknown += other.unknown
        self.repaired += other.repaired
        self.dropped += other.dropped
        self.failures += other.failures


class RequestStep(Protocol):
    """Changes a request. What it does not change it returns as it is, the same object."""

    def rewrite(self, body: Json) -> Json: ...


class StreamTranslator(Protocol):
    """One answer's stream: upstream bytes in, downstream bytes out, cut anywhere."""

    @property
    def silent(self) -> bool:
        """Have events come since something was last written? Then a comment keeps the line alive."""

    @property
    def counts(self) -> Counts: ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self, cut: bool = False) -> bytes:
        """What was held back; `cut` says that the upstream broke off."""


class Translation(Protocol):
    """What is done with one request and its answer."""

    @property
    def answers(self) -> bool:
        """Is the answer translated too? If not, its bytes pass."""

    @property
    def format(self) -> str:
        """Names the counters' label."""

    @property
    def counts(self) -> Counts:
        """Of the answers translated so far."""

    def request(self, body: Json) -> Json:
        """The body for the upstream; the same object if its bytes may go as they came."""

    def answer_stream(self) -> StreamTranslator: ...

    def answer_json(self, body: bytes) -> bytes: ...
