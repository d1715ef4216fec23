"""The texts the engine can be asked for: each is a list of the pieces one chunk carries.

They hold what careless parsers trip over: line ends and separators that only
SSE or only Unicode knows, characters longer than one code point, markers of the
stream itself inside the text, and tool calls written out the way models do it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

Pieces = tuple[str, ...]

UTF8: Pieces = ("café ", "😀", "😁 ", "日", "本語 ", "\U0001f468\u200d", "\U0001f496", " e\u0301", " fin")

NASTY: Pieces = (
    "data: [DONE]",
    "\n\n",
    'data: {"x": 1}',
    "\r\n",
    "event: error\r",
    ": ping",
    "back\\slash",
    ' "quote"',
    " tab\t",
    " ls\u2028",
    " ps\u2029",
    " nel\u0085",
    " vt\u000b",
    " ff\u000c",
    " fs\u001c",
    " esc\u001b[0m",
    " bom\ufeff",
    " </script>",
    " &amp;",
    " end",
)

THOUGHT: Pieces = ("Let", " me", " think", " first.")
ANSWER: Pieces = ("Then", " I", " answer.")

TEXTS: Mapping[str, Pieces] = {
    "hello": ("Hello", " from", " the", " demo", " engine", "."),
    "empty": (),
    "utf8": UTF8,
    "nasty": NASTY,
}


def count(numbers: int) -> Pieces:
    """As many numbered pieces as asked: a lost or doubled one shows."""
    return tuple(f" {number:03d}" for number in range(numbers))


def _function_calls(name: str, arguments: Mapping[str, Any]) -> str:
    body = orjson.dumps(arguments).decode()
    return (
        f"<function_calls>\n<function_call>\n<tool>{name}</tool>\n"
        f"<args_json><![CDATA[{body}]]></args_json>\n</function_call>\n</function_calls>"
    )


def _hermes(name: str, arguments: Mapping[str, Any]) -> str:
    body = orjson.dumps({"name": name, "arguments": arguments}).decode()
    return f"<tool_call>\n{body}\n</tool_call>"


def _qwen3_xml(name: str, arguments: Mapping[str, Any]) -> str:
    lines = [f"<parameter={key}>\n{_plain(value)}\n</parameter>\n" for key, value in arguments.items()]
    return f"<tool_call>\n<function={name}>\n{''.join(lines)}</function>\n</tool_call>"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


# How a model without a server-side parser writes a call into its text.
WRITTEN_CALLS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "xml": _function_calls,
    "hermes": _hermes,
    "qwen3_xml": _qwen3_xml,
}


def pieces_of(text: str, size: int = 7) -> Pieces:
    """Cut `text` as a tokenizer might: at places that mean nothing to a parser."""
    return tuple(text[start : start + size] for start in range(0, len(text), size))
