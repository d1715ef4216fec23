"""Tells a model of the tools in its system message, for upstreams that know no tools.

The grammar is shown by an example that the format's own writer made, so the
prompt asks for exactly what the scanner reads.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import orjson

from proxy.adapters.chat_request import Wanted
from proxy.adapters.history_native import letters
from proxy.adapters.merge_system import is_system, joined
from proxy.adapters.prompt_styles import Style
from proxy.adapters.tool_calls.format import Body, Format
from proxy.adapters.tool_calls.render import Call, render_calls

# The length Toolify uses: 14.8 million marks, and each is known to one conversation only.
TRIGGER_LETTERS = 4

_EXAMPLE = Call(
    id="EXAMPLE",
    name="TOOL_NAME",
    arguments={"PARAMETER_1": "the first value", "PARAMETER_2": "a value\nof two lines"},
)


def tool_prompt(
    format: Format, style: Style, wanted: Wanted, *, trigger: str | None = None, template: str | None = None
) -> str:
    """The section about tools; `template` replaces our own text."""
    tools = style.tools(wanted.tools)
    example = example_of(format, trigger)
    if template is not None:
        text = filled(template, tools=tools, trigger=trigger or "", example=example)
        return "\n\n".join((text.strip(), *wishes(wanted)))
    parts = (
        "# Tools",
        "These tools can be called in this conversation:",
        tools,
        how_to_call(format, example, trigger),
        *wishes(wanted),
    )
    return "\n\n".join(parts)


def how_to_call(format: Format, example: str, trigger: str | None) -> str:
    """The grammar, and what goes with it."""
    rules = [
        "Text may stand before a call, never behind it: after a call, stop and wait for its result.",
        _several(format),
        "Write names of tools and parameters exactly as they are listed, and give every required parameter.",
        _values(format),
        "Do not put a call in a code fence, and do not call a tool again whose result is already here.",
        "If no tool fits, answer without one.",
    ]
    if trigger is not None:
        rules.insert(
            0, f"The line {trigger} stands alone, once, directly before the calls, and nowhere else."
        )
    listed = "\n".join(f"- {rule}" for rule in rules)
    return f"To call a tool, write exactly this, with its name and its parameters:\n\n{example}\n\n{listed}"


def example_of(format: Format, trigger: str | None) -> str:
    markup = render_calls(format, [_EXAMPLE])
    return f"{trigger}\n{markup}" if trigger is not None else markup


def filled(template: str, **parts: str) -> str:
    """A template with its placeholders filled in; other braces mean nothing.

    `{tools_list}` and `{trigger_signal}` are Toolify's names for `{tools}` and `{trigger}`.
    """
    parts |= {"tools_list": parts["tools"], "trigger_signal": parts["trigger"]}
    pieces = template.split("{")
    text = [pieces[0]]
    for piece in pieces[1:]:
        name, brace, rest = piece.partition("}")
        text.append(parts[name] + rest if brace and name in parts else "{" + piece)
    return "".join(text)


def with_system(messages: Sequence[Any], text: str) -> list[Any]:
    """The messages with a text at the end of the system message; there is never a second one."""
    if messages and is_system(messages[0]):
        first = messages[0] | {"content": joined(messages[0].get("content"), text)}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def derived_trigger(tools: object, secret: bytes) -> str:
    """A mark that is the same for a whole conversation and that its texts cannot guess."""
    digest = hmac.new(secret, orjson.dumps(tools), hashlib.sha256).digest()
    return f"<Function_{letters(digest, TRIGGER_LETTERS)}_Start/>"


def wishes(wanted: Wanted, *, single: bool = True) -> list[str]:
    """What the request asks for beside the tools, in words; `single`: also to call one at most."""
    found = []
    if wanted.named is not None:
        found.append(f"In your next answer you must call the tool {wanted.named}, and no other.")
    elif wanted.required:
        found.append("In your next answer you must call at least one tool.")
    if wanted.single and single:
        found.append("Call at most one tool in an answer.")
    return found


def _several(format: Format) -> str:
    if format.one_wrap or format.trigger:
        return "For several calls in one answer, put them one after the other inside the one outer block."
    return "For several calls in one answer, write one such block after the other."


def _values(format: Format) -> str:
    if format.body in (Body.ELEMENTS, Body.TREE):
        return "Write a text value as it is, without quotes and without escaping; any other value as JSON."
    if format.body in (Body.PYTHON, Body.BRACES):
        return "Write values as in the example; texts in quotes, with line breaks as they would be in code."
    return (
        "The parameters are one JSON object; line breaks and quotes inside its texts are escaped as in JSON."
    )
