"""The ways in which model families mark their thinking: a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFamily:
    """One way of marking the thinking."""

    name: str
    open: tuple[str, ...] = ("<think>",)
    close: tuple[str, ...] = ("</think>",)
    # A title that follows the opening tag.
    title: str = ""
    # What an answer starts in when nobody says.
    starts_inside: bool = False
    # Marks of tool calls that end the thinking where no tool scanner can judge them.
    ended_by: tuple[str, ...] = ()
    # What stands around the tags is the template's, not the model's: white space, one line break, nothing.
    trim: Literal["space", "line", "none"] = "space"
    # The tags are special tokens: outside of calls they count anywhere, and a stray one is dropped.
    anywhere: bool = False
    # A closing tag in the answer is a repeated one, not text.
    absorb: bool = False
    # Tags around the answer.
    answer: tuple[str, ...] = ()
    answer_end: tuple[str, ...] = ()
    # The thinking stays in the content, with the opening tag that the prompt held.
    append: bool = False


_KIMI_CALLS = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>", "<|tool_call_begin|>")
_DSML_CALLS = ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", "<｜DSML｜ calls>")

_FAMILIES = (
    ReasoningFamily(name="think"),
    ReasoningFamily(name="qwen3", ended_by=("<tool_call>",), absorb=True),
    ReasoningFamily(name="deepseek_r1", starts_inside=True),
    ReasoningFamily(name="deepseek_v3", ended_by=_DSML_CALLS, absorb=True),
    ReasoningFamily(name="dsml", ended_by=_DSML_CALLS, absorb=True),
    ReasoningFamily(name="glm45", ended_by=("<tool_call>",)),
    ReasoningFamily(name="kimi_k2", ended_by=_KIMI_CALLS),
    ReasoningFamily(name="minimax_m2", starts_inside=True, ended_by=("<minimax:tool_call>",)),
    ReasoningFamily(name="minimax_m2_append", starts_inside=True, append=True),
    ReasoningFamily(name="minimax_m3", open=("<mm:think>",), close=("</mm:think>",)),
    ReasoningFamily(
        name="seed_oss", open=("<seed:think>",), close=("</seed:think>",), starts_inside=True, absorb=True
    ),
    ReasoningFamily(name="mistral", open=("[THINK]",), close=("[/THINK]",), anywhere=True),
    ReasoningFamily(name="olmo3", starts_inside=True, trim="none"),
    ReasoningFamily(name="step3p5", starts_inside=True, trim="line"),
    ReasoningFamily(name="nemotron_v3", starts_inside=True, absorb=True),
    ReasoningFamily(name="holo2", starts_inside=True),
    ReasoningFamily(
        name="k2_horizon",
        open=("<ifm|think>", "<ifm|think_fast>", "<ifm|think_faster>"),
        close=("</ifm|think>", "</ifm|think_fast>", "</ifm|think_faster>"),
    ),
    ReasoningFamily(
        name="kimi_k3",
        open=("<|open|>think<|sep|>",),
        close=("<|close|>think<|sep|>",),
        answer=("<|open|>response<|sep|>",),
        answer_end=(
            "<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|>",
            "<|close|>response<|sep|><|close|>message<|sep|>",
            "<|close|>response<|sep|>",
        ),
    ),
    ReasoningFamily(
        name="plamo3",
        open=("<|plamo:begin_think:plamo|>",),
        close=("<|plamo:end_think:plamo|>",),
        trim="none",
        anywhere=True,
    ),
    ReasoningFamily(name="cohere", open=("<|START_THINKING|>",), close=("<|END_THINKING|>",), anywhere=True),
    ReasoningFamily(name="harmony", open=("<|channel|>analysis<|message|>",), close=("<|end|>",)),
    ReasoningFamily(
        name="gemma4", open=("<|channel>",), close=("<channel|>",), title="thought\n", anywhere=True
    ),
    ReasoningFamily(
        name="granite",
        open=("Here is my thought process:", "Here's my thought process:"),
        close=("Here is my response:", "Here's my response:"),
        trim="none",
    ),
    ReasoningFamily(name="granite_thinking", answer=("<response>",), answer_end=("</response>",)),
    ReasoningFamily(name="ernie45", starts_inside=True, answer=("<response>",), answer_end=("</response>",)),
    ReasoningFamily(name="hunyuan_a13b", answer=("<answer>",), answer_end=("</answer>",)),
)

KINDS: Mapping[str, ReasoningFamily] = MappingProxyType({family.name: family for family in _FAMILIES})
