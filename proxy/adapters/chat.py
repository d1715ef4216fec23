"""The adapters of one model, and what they do with one chat request and its answer."""

from collections.abc import Iterable

from proxy.adapters.base import (
    Chance,
    Counts,
    EchoedReasoning,
    Emit,
    ReasoningOptions,
    RequestStep,
    StreamTranslator,
    ToolCallOptions,
)
from proxy.adapters.chat_answer import ChatAnswer
from proxy.adapters.chat_deltas import Emitter
from proxy.adapters.chat_request import thinking_asked, wanted
from proxy.adapters.chat_scanners import AnswerScanners, ThinkingScan, ToolScan
from proxy.adapters.chat_stream import ChatStream
from proxy.adapters.chat_tools import PromptTools, TemplateTools, ToolsStep
from proxy.adapters.history import has_tools
from proxy.adapters.history_reasoning import EchoedThinking
from proxy.adapters.merge_system import MergeSystemMessages
from proxy.adapters.prompt import derived_trigger
from proxy.adapters.reasoning_families import KINDS as FAMILIES
from proxy.adapters.reasoning_families import ReasoningFamily
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.formats import KINDS as FORMATS
from proxy.wire.openai import Json

DEFAULT_FAMILY = "think"
# Their templates open the thinking in the prompt, if the request asks for it.
_OPENED_ON_REQUEST = frozenset({"deepseek_v3", "dsml"})


class ChatAdapters:
    """Built once for a model; `plan` once for each request."""

    def __init__(
        self,
        *,
        tools: ToolCallOptions | None = None,
        reasoning: ReasoningOptions | None = None,
        merge_system: bool = False,
        steps: Iterable[RequestStep] = (),
        secret: bytes,
        chance: Chance,
    ) -> None:
        """`steps` come last; `secret` makes triggers that no text can guess."""
        self._tools = tools
        self._format = FORMATS[tools.format] if tools is not None else None
        self._reasoning = reasoning
        self._family = self._find_family()
        self._steps = (*((MergeSystemMessages(),) if merge_system else ()), *steps)
        self._secret = secret
        self._chance = chance

    def plan(self, body: Json) -> "ChatTranslation | None":
        """What to do with a request, or None if its bytes and its answer's pass untouched."""
        if not isinstance(body.get("messages"), list):
            return None
        tools = self._tool_step(body)
        scan = tools.scan if tools is not None else None
        thinking = self._thinking_scan(scan, thinking_asked(body))
        steps = [step for step in (self._echo(tools), tools) if step is not None]
        translation = ChatTranslation((*steps, *self._steps), scan, thinking, self._chance)
        if not translation.answers and translation.request(body) is body:
            return None
        return translation

    def _find_family(self) -> ReasoningFamily:
        named = self._reasoning.format if self._reasoning is not None else None
        ours = self._format.reasoning if self._format is not None else None
        return FAMILIES[named or ours or DEFAULT_FAMILY]

    def _tool_step(self, body: Json) -> ToolsStep | None:
        options, format = self._tools, self._format
        if options is None or format is None:
            return None
        found = wanted(body)
        in_prompt = options.mode == "prompt"
        if not found and not (in_prompt and has_tools(body["messages"])):
            return None
        trigger = self._trigger(format, options, body)
        scan = ToolScan(format=format, wanted=found, trigger=trigger, unknown_tools=options.unknown_tools)
        if not in_prompt:
            return TemplateTools(scan)
        return PromptTools(scan, template=options.prompt)

    def _trigger(self, format: Format, options: ToolCallOptions, body: Json) -> str | None:
        if not format.trigger:
            return None
        return options.trigger or derived_trigger(body.get("tools"), self._secret)

    def _thinking_scan(self, tools: ToolScan | None, asked: bool | None) -> ThinkingScan | None:
        """Where nobody wants the thinking split off it stays text, but calls inside it are none."""
        options, with_calls = self._reasoning, tools is not None and bool(tools.wanted)
        if options is not None and (options.emit != "keep" or with_calls):
            starts_inside = options.start_in_reasoning
            if asked is False or (asked and self._family.name in _OPENED_ON_REQUEST):
                starts_inside = asked
            emit: Emit = "keep" if self._family.append else options.emit
            return ThinkingScan(family=self._family, starts_inside=starts_inside, emit=emit)
        if with_calls:
            return ThinkingScan(family=self._family, starts_inside=False, emit="keep", implied=True)
        return None

    def _echo(self, tools: ToolsStep | None) -> EchoedThinking | None:
        """What becomes of thinking that the client sends back."""
        in_prompt = isinstance(tools, PromptTools)
        if self._reasoning is None and not in_prompt:
            return None
        becomes = self._reasoning.history if self._reasoning is not None else "auto"
        if becomes == "auto":
            becomes = self._echo_in_text() if in_prompt else self._echo_in_field()
        return EchoedThinking(becomes, self._family)

    def _echo_in_text(self) -> EchoedReasoning:
        """Some models are trained to see their earlier thinking; the others were never shown it."""
        return "text" if self._format is not None and self._format.interleaved else "strip"

    def _echo_in_field(self) -> EchoedReasoning:
        """Mistral's API refuses messages with fields that it does not know."""
        return (
            "strip" if self._format is not None and self._format.id_style == "nine" else "reasoning_content"
        )


class ChatTranslation:
    """What is done with one request and its answer."""

    def __init__(
        self,
        steps: tuple[RequestStep, ...],
        tools: ToolScan | None,
        thinking: ThinkingScan | None,
        chance: Chance,
    ) -> None:
        self._steps = steps
        self._tools = tools if tools is not None and tools.wanted else None
        self._thinking = thinking
        self._chance = chance
        self._answers: list[ChatStream | ChatAnswer] = []

    @property
    def answers(self) -> bool:
        """Is the answer translated too? If not, its bytes pass."""
        return self._tools is not None or self._thinking is not None

    @property
    def format(self) -> str:
        if self._tools is not None:
            return self._tools.format.name
        return self._thinking.family.name if self._thinking is not None else ""

    @property
    def counts(self) -> Counts:
        counts = Counts()
        for answer in self._answers:
            counts.add(answer.counts)
        return counts

    def request(self, body: Json) -> Json:
        """The body for the upstream; the same object if its bytes may go as they came."""
        for step in self._steps:
            body = step.rewrite(body)
        return body

    def answer_stream(self) -> StreamTranslator:
        stream = ChatStream(self._scanners(), self._emitter(), named=self._is_named(), format=self.format)
        self._answers.append(stream)
        return stream

    def answer_json(self, body: bytes) -> bytes:
        answer = ChatAnswer(self._scanners(), self._emitter(), named=self._is_named(), format=self.format)
        self._answers.append(answer)
        return answer.translate(body)

    def _scanners(self) -> AnswerScanners:
        return AnswerScanners(self._tools, self._thinking, self._chance)

    def _emitter(self) -> Emitter:
        emit: Emit = self._thinking.emit if self._thinking is not None else "keep"
        return Emitter(emit)

    def _is_named(self) -> bool:
        return self._tools is not None and self._tools.wanted.named is not None
