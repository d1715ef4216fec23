"""A spot in the document, for messages about values that were found there."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from proxy.config.document import Node, Report
from proxy.config.problems import Problem, shown
from proxy.config.scalars import guess

Step = str | int


@dataclass(frozen=True, slots=True)
class Place:
    """The way to a value; `/` goes a step down."""

    root: Node
    report: Report
    steps: tuple[Step, ...] = ()

    def __truediv__(self, step: Step) -> "Place":
        return Place(self.root, self.report, (*self.steps, step))

    def refuse(self, sentence: str, found: str = "") -> None:
        """Say what is wrong here; an empty sentence says nothing."""
        if sentence:
            node, rest = self._deepest()
            self.report(Problem(node.line, node.path + rest if node.path else rest[1:], found, sentence))

    def judge(self, value: str, verdict: Callable[[str], str]) -> None:
        """Refuse a value, showing it as it was written; one that is missing was reported before."""
        if value and (sentence := verdict(value)):
            self.refuse(sentence, self._found(value))

    def known(self, name: str, names: Iterable[str], where: str) -> bool:
        """Whether `name` is one of `names`; says so if not."""
        names = list(names)
        if name in names:
            return True
        has = f"has {', '.join(names)}" if names else "has none"
        self.refuse(f"{where} {has}{guess(name, names)}", self._found(name))
        return False

    def distinct(self, names: Iterable[str], key: str) -> None:
        """Refuse every name of a list's entries that stood in an entry before."""
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                place = self / index / key
                place.refuse("another entry has this name already", place._found(name))
            seen.add(name)

    def headers(self, headers: Mapping[str, str], verdict: Callable[[str, str], str]) -> None:
        for name, value in headers.items():
            (self / name).refuse(verdict(name, value))

    def written(self) -> str:
        """The path, for a note."""
        node, rest = self._deepest()
        return (node.path + rest).lstrip(".")

    def node(self) -> Node | None:
        """What stands here, None where a default is used."""
        node, rest = self._deepest()
        return None if rest else node

    def is_empty(self, values: Collection[object]) -> bool:
        """Whether nothing stands here, and nothing did that was refused before."""
        node = self.node()
        return not values and not (node and (node.dropped or node.is_broken))

    def _found(self, value: str) -> str:
        """A value as it was written, `${…}` and all; nothing that may hold user:password@host."""
        node = self.node()
        text = node.text if node and node.text else value
        return "" if "@" in text else shown(text)

    def _deepest(self) -> tuple[Node, str]:
        node = self.root
        for position, step in enumerate(self.steps):
            below = _below(node, step)
            if below is None:
                return node, "".join(map(_shown_step, self.steps[position:]))
            node = below
        return node, ""


def _below(node: Node, step: Step) -> Node | None:
    if isinstance(step, str):
        return node.mapping.get(step)
    return node.items[step] if step < len(node.items) else None


def _shown_step(step: Step) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"
