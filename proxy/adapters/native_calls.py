"""The native tool calls of one choice, in the shape that clients rely on.

The first delta of a call has its index, an id of its own and its whole name; the
others have the index and more of the arguments. Engines leave indexes and ids out,
begin at 1, give every call index 0, repeat ids, send the name late or in pieces.
What is right already stays the object it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.adapters.native_arguments import NativeArguments, text_of_arguments
from proxy.wire.openai import Json

# The OpenAI API allows 128 tools in a request; an answer with more calls than that is a model in a
# loop, and what comes behind them passes as it is.
MAX_CALLS = 128

# Arguments that wait for a name. Engines that send it late send it in the second delta.
MAX_WAITING_CHARS = 64 * 1024


@dataclass(slots=True)
class Call:
    """One call: `number` counts those of the choice, `given_id` is what the upstream calls it."""

    number: int
    given_id: str = ""
    name: str = ""
    is_announced: bool = False
    is_malformed: bool = False
    waiting: str = ""
    arguments: NativeArguments = field(default_factory=NativeArguments)


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of a delta's `tool_calls`, read."""

    raw: Json
    function: Json
    index: int | None
    id: str
    name: str
    text: str


class NativeCalls:
    """`take` the entries of each delta, `end` once with the finish reason."""

    def __init__(self, names: frozenset[str], ids: set[str], new_id: Callable[[], str]) -> None:
        """`names` are the tools that the request offers, `ids` those of the answer so far."""
        self.calls: list[Call] = []
        self._names = names
        self._ids = ids
        self._new_id = new_id
        self._by_index: dict[int, Call] = {}

    @property
    def any_announced(self) -> bool:
        return any(call.is_announced for call in self.calls)

    def take(self, items: list[Any]) -> list[Any]:
        """The entries to write; those in which nothing changes are the same objects."""
        made = [self._taken(_read(item)) if isinstance(item, dict) else item for item in items]
        return [item for item in made if item is not None]

    def end(self, *, truncated: bool) -> list[Json]:
        """What is missing still: names that waited, ends of arguments."""
        made: list[Json] = []
        for call in self.calls:
            if not call.is_announced:
                if not call.name:
                    continue
                made.append(self._announced(call))
            rest = call.arguments.end(truncated=truncated)
            if rest:
                made.append(_more(call, rest))
        return made

    def _taken(self, item: _Item) -> Json | None:
        call = self._call_of(item)
        if call is None:
            return item.raw
        if item.id and not call.given_id:
            call.given_id = item.id
        if call.is_announced:
            return self._continued(call, item)
        call.name = _joined_name(call.name, item.name, self._names)
        call.waiting += item.text
        if not self._may_announce(call):
            call.is_malformed = True
            return None
        made = self._announced(call)
        if _says(item, made):
            return item.raw
        call.is_malformed = True
        return item.raw | made | {"function": item.function | made["function"]}

    # which call

    def _call_of(self, item: _Item) -> Call | None:
        """The call an entry belongs to, a new one if it begins one; None where there are too many."""
        call = self._known(item)
        if call is not None and not _begins_another(call, item):
            return call
        if len(self.calls) >= MAX_CALLS:
            return call
        call = Call(len(self.calls))
        self.calls.append(call)
        if item.index is not None:
            self._by_index[item.index] = call
        return call

    def _known(self, item: _Item) -> Call | None:
        if item.index is not None:
            return self._by_index.get(item.index)
        by_id = [call for call in self.calls if item.id and call.given_id == item.id]
        return (by_id or self.calls)[-1] if self.calls else None

    # what is written of it

    def _may_announce(self, call: Call) -> bool:
        """Whether the name is whole: a tool's, or one that cannot become a tool's any more."""
        if not call.name:
            return len(call.waiting) > MAX_WAITING_CHARS
        is_begun = call.name not in self._names and any(name.startswith(call.name) for name in self._names)
        return not is_begun or bool(call.waiting.strip())

    def _announced(self, call: Call) -> Json:
        call.is_announced = True
        text, call.waiting = call.arguments.take(call.waiting), ""
        id = call.given_id if call.given_id and call.given_id not in self._ids else self._new_id()
        self._ids.add(id)
        return {
            "index": call.number,
            "id": id,
            "type": "function",
            "function": {"name": call.name, "arguments": text},
        }

    def _continued(self, call: Call, item: _Item) -> Json | None:
        text = call.arguments.take(item.text)
        is_right = item.index == call.number and not item.id and not item.name
        if is_right and item.function.get("arguments", "") == text:
            return item.raw
        call.is_malformed = True
        return _more(call, text) if text else None


def _more(call: Call, text: str) -> Json:
    return {"index": call.number, "function": {"arguments": text}}


def _read(item: Json) -> _Item:
    function = item.get("function")
    function = function if isinstance(function, dict) else {}
    index, id, name = item.get("index"), item.get("id"), function.get("name")
    return _Item(
        item,
        function,
        index if type(index) is int else None,
        id if isinstance(id, str) else "",
        name if isinstance(name, str) else "",
        text_of_arguments(function.get("arguments")),
    )


def _says(item: _Item, made: Json) -> bool:
    """Does an entry say already what was made of it?"""
    return all(item.raw.get(key) == made[key] for key in ("index", "id", "type")) and all(
        item.function.get(key) == value for key, value in made["function"].items()
    )


def _begins_another(call: Call, item: _Item) -> bool:
    """Whether an entry that seems to go on with this call begins the next one.

    Some engines give every call the same index, or none; some repeat name and id in
    every delta, or make a new id for each. Where the arguments are whole, only another
    call can follow; else a new id begins one if the name is new too.
    """
    if not item.name:
        return False
    if call.arguments.is_whole:
        if item.id:
            return item.id != call.given_id
        return bool(item.text.strip()) or item.name != call.name
    is_new_id = bool(item.id and call.given_id) and item.id != call.given_id
    return is_new_id and (item.index is None or item.name != call.name)


def _joined_name(held: str, more: str, names: frozenset[str]) -> str:
    """A name in pieces: each a part of it, or each all of it so far."""
    if not held or not more or held == more:
        return held or more
    return more if more.startswith(held) and more in names else held + more
