"""Runs text through the scanners of an answer, cut in any way, and joins what they say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from proxy.adapters.events import CallArguments, CallEnd, CallStart, Event, Reasoning, Text
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.scanner import ToolScanner
from proxy.adapters.tool_calls.tools import Tools


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A tool as a request has it; a property is a type's name or a whole schema."""
    schemas = {key: {"type": value} if isinstance(value, str) else value for key, value in properties.items()}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": schemas}},
    }


# What the vectors call: a string, a number, and everything whose spelling only its end shows.
TOOLS = (
    tool("read", path="string"),
    tool(
        "write",
        path="string",
        content="string",
        line="integer",
        tags="array",
        meta="object",
        force="boolean",
        note={"type": ["string", "null"]},
    ),
    tool("now"),
)


@dataclass
class Called:
    """One call as a client would put it together; `complete` unless the model was cut off in it."""

    name: str
    arguments: str = ""
    complete: bool = False
    id: str = field(default="", compare=False)


@dataclass
class Answer:
    """An answer as a client would put it together."""

    content: str = ""
    reasoning: str = ""
    calls: list[Called] = field(default_factory=list)


def call(name: str, arguments: str = "{}") -> Called:
    return Called(name, arguments, complete=True)


def joined(events: Iterable[Event]) -> Answer:
    """What the events say, and that they came in an order that makes sense."""
    answer = Answer()
    for event in events:
        match event:
            case Text(text):
                answer.content += text
            case Reasoning(text):
                answer.reasoning += text
            case CallStart(index, id, name):
                assert index == len(answer.calls)
                answer.calls.append(Called(name, id=id))
            case CallArguments(index, text):
                assert text and index == len(answer.calls) - 1 and not answer.calls[index].complete
                answer.calls[index].arguments += text
            case CallEnd(index):
                assert index == len(answer.calls) - 1 and not answer.calls[index].complete
                answer.calls[index].complete = True
    return answer


def scanner(name: str, tools: Sequence[dict[str, Any]] = (), **options: Any) -> ToolScanner:
    """A scanner of a format, with ids that can be told apart."""
    ids = count()
    return ToolScanner(KINDS[name], Tools(tools), new_id=lambda: f"call_{next(ids)}", **options)


def run(scan: AnswerScanner | ToolScanner, pieces: Iterable[str], *, truncated: bool = False) -> Answer:
    events: list[Event] = []
    for piece in pieces:
        events += scan.feed(piece)
    return joined(events + scan.finish(truncated))


def same_however_cut(name: str, text: str, *, truncated: bool = False, **options: Any) -> Answer:
    """What a format's scanner makes of a text, which must not depend on the cuts."""
    tools = options.pop("tools", TOOLS)
    answers = [run(scanner(name, tools, **options), pieces, truncated=truncated) for pieces in cuts(text)]
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def cuts(text: str) -> Iterable[list[str]]:
    """The text whole, in single characters, and in two at every place."""
    yield [text]
    yield list(text)
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]
