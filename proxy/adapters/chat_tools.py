"""How an upstream hears of a request's tools: by its own chat template, or by a prompt of ours."""

from typing import Protocol

from proxy.adapters.chat_scanners import ToolScan
from proxy.adapters.history import TextHistory
from proxy.adapters.history_native import repaired
from proxy.adapters.prompt import example_of, how_to_call, tool_prompt, wishes, with_system
from proxy.adapters.prompt_styles import style_of
from proxy.adapters.tool_calls.format import Body
from proxy.adapters.tool_calls.formats import KINDS
from proxy.wire.openai import Json

# For models of which nothing is known: long texts need no escaping, and a value's
# line breaks are told from those of the markup.
UNKNOWN_MODEL_FORMAT = "qwen3_xml"

_TOOL_FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"})


class ToolsStep(Protocol):
    """A request step that also says what to look for in the answer."""

    @property
    def scan(self) -> ToolScan: ...

    def rewrite(self, body: Json) -> Json: ...


class TemplateTools:
    """The tools stay in the request; `none` keeps the upstream from looking for calls itself."""

    def __init__(self, scan: ToolScan) -> None:
        self.scan = scan

    def rewrite(self, body: Json) -> Json:
        scan, wanted = self.scan, self.scan.wanted
        changes: Json = {"tool_choice": "none", "tools": list(wanted.tools)}
        if scan.format.special_tokens:
            changes |= {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        messages = repaired(body["messages"], nine=scan.format.id_style == "nine")
        text = "\n\n".join(wishes(wanted, single=False))
        if scan.trigger is not None:
            # No chat template knows this grammar.
            grammar = how_to_call(scan.format, example_of(scan.format, scan.trigger), scan.trigger)
            text = f"{grammar}\n\n{text}".strip()
        changes["messages"] = with_system(messages, text) if text else messages
        return body | changes


class PromptTools:
    """The tools leave the request and stand in the system message; history becomes text."""

    def __init__(self, scan: ToolScan, *, template: str | None = None) -> None:
        self.scan = scan
        self._template = template
        self._format = scan.format if scan.format.body is not Body.NONE else KINDS[UNKNOWN_MODEL_FORMAT]
        self._style = style_of(self._format.name)

    def rewrite(self, body: Json) -> Json:
        scan = self.scan
        history = TextHistory(self._format, self._style, scan.trigger)
        messages = history.rewritten(body["messages"])
        if scan.wanted:
            text = tool_prompt(
                self._format, self._style, scan.wanted, trigger=scan.trigger, template=self._template
            )
            messages = with_system(messages, text)
        kept = {key: value for key, value in body.items() if key not in _TOOL_FIELDS}
        return kept | {"messages": messages}
