"""Arguments as elements named after them, nested, every tag behind a prefix.

The prefix is a text that no value holds, so the end of the call is found by its
mark alone; the tree is read when all of it is there.
"""

import re
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quoted

from proxy.adapters.scanning_pattern import Pattern
from proxy.adapters.tool_calls.coerce import encode
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.openings import tags
from proxy.adapters.tool_calls.output import Output, pairs
from proxy.adapters.tool_calls.tools import STRING, Schema

# A call is held until it is whole: long enough for any file that a model writes in
# one answer. A longer one is given up, since its arguments cannot be sent in part.
MAX_HELD = 8 * 1024 * 1024
# The engine that defines the format refuses deeper trees.
MAX_DEPTH = 128
_ITEM = "item"
_TEXT = "$text"


@dataclass(slots=True)
class Node:
    """An element."""

    name: str
    text: list[str] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)


class Tree:
    """Reads one call from behind its head to its end."""

    def __init__(self, format: Format, output: Output, name: str) -> None:
        self.done = False
        self._output = output
        self._schema = output.tools.arguments(name)
        self._end = Pattern(tags(format, format.call_end))
        self._tag = re.compile(re.escape(format.prefix) + r"<(/?)([^<>]+)>")
        self._pieces: list[str] = []
        self._size = 0

    @property
    def held(self) -> int:
        return self._size

    def read(self, text: str, at: int, ended: bool) -> int:
        """Take what is certain and return where it stopped."""
        stop, found = self._end.find(text, at, ended)
        self._pieces.append(text[at:stop])
        self._size += stop - at
        if found is not None:
            self._close()
            return found.end()
        if self._size > MAX_HELD:
            self._output.end(complete=False)
            self.done = True
        return stop

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over inside the call."""
        if truncated:
            self._output.end(complete=False)
            self.done = True
            return
        self._output.repaired += 1
        self._close()

    def _close(self) -> None:
        root = self._parsed("".join(self._pieces))
        pairs(self._output, {name: value(nodes, self._schema.of(name)) for name, nodes in named(root)})
        self._output.end()
        self.done = True

    def _parsed(self, text: str) -> Node:
        root = Node("")
        path = [root]
        at = 0
        for tag in self._tag.finditer(text):
            path[-1].text.append(text[at : tag.start()])
            at = tag.end()
            if not tag[1]:
                node = Node(tag[2].strip())
                if len(path) <= MAX_DEPTH:
                    path[-1].children.append(node)
                path.append(node)
            elif any(node.name == tag[2].strip() for node in path[1:]):
                while path.pop().name != tag[2].strip():
                    pass
        path[-1].text.append(text[at:])
        return root


def named(node: Node) -> list[tuple[str, list[Node]]]:
    """The children, those of one name together."""
    groups: dict[str, list[Node]] = {}
    for child in node.children:
        groups.setdefault(child.name, []).append(child)
    return list(groups.items())


def value(nodes: list[Node], schema: Schema) -> str:
    """The JSON of one argument, which may have been written as several elements."""
    if len(nodes) > 1:
        return _list(nodes, schema)
    node = nodes[0]
    types = schema.types
    if not node.children:
        text = "".join(node.text)
        if not text.strip() and "array" in types:
            return "[]"
        if not text.strip() and "object" in types:
            return "{}"
        return encode(text, types or STRING)
    if "array" in types or all(child.name == _ITEM for child in node.children):
        return _list(node.children, schema)
    return _object(node, schema)


def _list(nodes: list[Node], schema: Schema) -> str:
    return "[" + ", ".join(value([node], schema.items) for node in nodes) + "]"


def _object(node: Node, schema: Schema) -> str:
    parts = [f"{quoted(name)}: {value(nodes, schema.of(name))}" for name, nodes in named(node)]
    text = "".join(node.text).strip()
    if text:
        parts.append(f"{quoted(_TEXT)}: {quoted(text)}")
    return "{" + ", ".join(parts) + "}"
