"""YAML text as a tree of nodes that know their line and their path.

The tree is what everything else works on, so that a message can name the line even
after a section was moved or joined with another. Scalars are read as YAML 1.2 does
(`on` and `12:30` are text, `1e3` is a number), which makes JSON a subset; the type a
field wants has the last word (see convert.py).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from proxy.config.expand import Expander, ExpansionError
from proxy.config.problems import Problem, shown_key

Scalar: TypeAlias = bool | int | float | str | None
Report = Callable[[Problem], None]

# A file nests eight deep; more is a mistake, or an alias that holds itself.
MAX_DEPTH = 32
# The C parser recurses for each bracket and dies of a million; no text holds so many open ones.
MAX_BRACKETS = 200
# Aliases can blow up a small file. 100,000 keys of ten fields are a million nodes.
MAX_NODES = 4_000_000

_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
# The C parser reads a thousand models in a tenth of the time.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_BRACKET = re.compile(r"[\[\]{}]")
# Characters that JSON strings may hold as they are, and YAML must have escaped or would fold.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ESCAPED_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\.", re.DOTALL)


@dataclass(slots=True)
class Node:
    """A scalar, a list or a mapping, and where it was written."""

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int
    path: str
    text: str = ""
    """A scalar as it was written, before anything was put in."""
    is_expanded: bool = False
    is_broken: bool = False
    """What should stand here could not be found; that has been reported."""
    dropped: int = 0
    """How many items of this list were of no use; they have been reported."""

    @property
    def mapping(self) -> "dict[str, Node]":
        """The entries, none if this is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> "list[Node]":
        """The items, none if this is no list."""
        return self.value if isinstance(self.value, list) else []

    def child(self, key: str) -> str:
        """The path of an entry of this mapping."""
        return f"{self.path}.{shown_key(key)}" if self.path else shown_key(key)


@dataclass(slots=True)
class Reader:
    """Turns text into nodes and reports what is wrong with it on the way."""

    expander: Expander
    report: Report
    _count: int = field(default=0, init=False)

    def read(self, text: str) -> Node:
        """The document; an unreadable one is an empty mapping."""
        root = None
        if line := _too_deep(text):
            self.report(Problem(line, "", "", "this nests too deep"))
            return Node({}, 1, "")
        try:
            root = yaml.compose(_as_yaml(text), Loader=_LOADER)
        except yaml.YAMLError as error:
            self.report(_syntax_problem(error, text))
        return Node({}, 1, "") if root is None else self._node(root, 1 + root.start_mark.line, "", 0)

    def _node(self, node: yaml.Node, line: int, path: str, depth: int) -> Node:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            self.report(Problem(line, path, "", "this nests too deep, or holds too many aliases"))
            return Node(None, line, path)
        if isinstance(node, yaml.MappingNode):
            self._refuse_tag(node, "map", line, path)
            mapping = Node({}, line, path)
            self._fill(mapping, node, depth)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, "seq", line, path)
            items = [
                self._node(item, 1 + item.start_mark.line, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
            return Node(items, line, path)
        return self._scalar(node, line, path)

    def _fill(self, mapping: Node, node: yaml.MappingNode, depth: int) -> None:
        """Entries in order; those of `<<` only where no entry of the mapping's own stands."""
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = 1 + key_node.start_mark.line
            if not isinstance(key_node, yaml.ScalarNode):
                self.report(Problem(line, mapping.path, "", "a key must be text"))
                continue
            key = key_node.value
            if key == _MERGE and not key_node.style:
                merged = self._merge(value_node, line, mapping.path, depth) | merged
                continue
            if key in own:
                sentence = f"written twice, first in line {own[key].line}"
                self.report(Problem(line, mapping.child(key), "", sentence))
            own[key] = self._node(value_node, line, mapping.child(key), depth + 1)
        mapping.value = merged | own

    def _merge(self, node: yaml.Node, line: int, path: str, depth: int) -> dict[str, Node]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Node] = {}
        for source in reversed(sources):
            if isinstance(source, yaml.MappingNode):
                merged |= self._node(source, line, path, depth + 1).mapping
            else:
                self.report(Problem(line, path, "", "<< can only join mappings"))
        return merged

    def _scalar(self, node: yaml.Node, line: int, path: str) -> Node:
        assert isinstance(node, yaml.ScalarNode)
        self._refuse_tag(node, "str", line, path)
        text = node.value
        if "$" in text:
            return self._expanded(text, line, path)
        return Node(text if node.style else plain_value(text), line, path, text)

    def _expanded(self, text: str, line: int, path: str) -> Node:
        try:
            value = self.expander.expand(text)
        except ExpansionError as error:
            self.report(Problem(line, path, "", str(error)))
            return Node(None, line, path, text, is_broken=True)
        return Node(value, line, path, text, is_expanded="${" in text)

    def _refuse_tag(self, node: yaml.Node, expected: str, line: int, path: str) -> None:
        if node.tag not in (_TAG + expected, "!"):
            self.report(Problem(line, path, "", "YAML tags (!…) mean nothing here; leave it out"))


def plain_value(text: str) -> Scalar:
    """An unquoted scalar, by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def kind_of(node: Node) -> str:
    """What a node is, in words, without its value."""
    match node.value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
    return "text"


def _as_yaml(text: str) -> str:
    """JSON may hold tabs, odd characters and escaped surrogate pairs, which YAML parsers refuse."""
    document = text.removeprefix("\ufeff")
    if not document.lstrip().startswith("{"):
        return text
    try:
        json.loads(document)
    except ValueError:
        return text
    # a tab in JSON is always white space: inside a string it would have to be escaped
    document = _ESCAPED_PAIR.sub(_joined_pair, document.replace("\t", " "))
    return _NOT_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _too_deep(text: str) -> int:
    """The line where brackets nest too deep for the parser, or 0."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match[0] in "[{" else -1
        if depth > MAX_BRACKETS:
            return 1 + text.count("\n", 0, match.start())
    return 0


def _joined_pair(match: re.Match[str]) -> str:
    high, low = match.groups()
    if high is None:
        return match[0]
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        line = 1 + error.problem_mark.line if error.problem_mark else 1
        return Problem(line, "", "", f"not YAML: {error.problem}")
    line = 1 + text[: getattr(error, "position", 0)].count("\n")
    return Problem(line, "", "", "not YAML: a character that YAML does not allow")
