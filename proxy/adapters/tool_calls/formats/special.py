"""Formats made of special tokens around a name and JSON arguments."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

KIMI_K2 = Format(
    name="kimi_k2",
    body=Body.JSON,
    wrap=("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>"),
    wrap_end=("<|tool_calls_section_end|>", "<|tool_call_section_end|>"),
    one_wrap=True,
    call=(
        "<|tool_call_begin|>functions.{name}:{n}<|tool_call_argument_begin|>",
        "<|tool_call_begin|> functions.{name}:{n} <|tool_call_argument_begin|>",
        "<|tool_call_begin|> {name}:{n} <|tool_call_argument_begin|>",
        "<|tool_call_begin|> {name} <|tool_call_argument_begin|>",
    ),
    call_end=("<|tool_call_end|>",),
    name_of=r"[^<>:|\n]",
    drop=("<|im_end|>",),
    drop_late=("<|tool_calls_section_end|>", "<|tool_call_section_end|>"),
    lines=False,
    special_tokens=True,
    id_style="native",
    native_id="functions.{name}:{n}",
    reasoning="kimi_k2",
    interleaved=True,
)
_CHANNEL_ENDS = (
    "<|close|>response<|sep|>",
    "<|close|>message<|sep|>",
    "<|close|>tools<|sep|>",
    "<|end_of_msg|>",
)
_KIMI_K3_JSON = Format(
    name="kimi_k3",
    body=Body.JSON,
    wrap=("<|open|>tools<|sep|>",),
    wrap_end=("<|close|>tools<|sep|>",),
    call=('<|open|>call tool="{name}" index="{n}"<|sep|><|open|>json type="object"<|sep|>',),
    call_end=("<|close|>json<|sep|><|close|>call<|sep|>",),
    special_tokens=True,
)
KIMI_K3 = Format(
    name="kimi_k3",
    body=Body.ELEMENTS,
    wrap=_KIMI_K3_JSON.wrap,
    wrap_end=_KIMI_K3_JSON.wrap_end,
    one_wrap=True,
    call=('<|open|>call tool="{name}" index="{n}"<|sep|>', '<|open|>call tool="{name}"<|sep|>'),
    call_end=("<|close|>call<|sep|>",),
    argument=('<|open|>argument key="{key}" type="{type}"<|sep|>', '<|open|>argument key="{key}"<|sep|>'),
    argument_end=("<|close|>argument<|sep|>",),
    type_words=("string", ""),
    drop=("<|open|>response<|sep|>", *_CHANNEL_ENDS),
    lines=False,
    special_tokens=True,
    reasoning="kimi_k3",
    interleaved=True,
    also=(_KIMI_K3_JSON,),
)

_WORDS = ("tool▁calls", "tool_calls", "tool calls")
_BEGIN = tuple(f"<｜{word}{word[4]}begin｜>" for word in _WORDS)
_END = tuple(f"<｜{word}{word[4]}end｜>" for word in _WORDS)
_CALL = tuple(begin.replace("calls", "call") for begin in _BEGIN)
_CALL_END = tuple(end.replace("calls", "call") for end in _END)
_SEP = tuple(f"<｜{word[:5]}sep｜>" for word in _WORDS)

# V3.1. Distilled models write blanks and underscores for U+2581, and forget the mark before the first call.
_BARE = Format(
    name="deepseek_v31",
    body=Body.JSON,
    wrap=(*_BEGIN, "<｜tool▁calls｜>"),
    wrap_end=_END,
    one_wrap=True,
    call=tuple(f"{begin} {{name}} {sep}" for begin, sep in zip(_CALL + _BEGIN, _SEP + _SEP, strict=True)),
    call_end=_CALL_END,
    drop=("<｜end▁of▁sentence｜>",),
    drop_late=_END,
    lines=False,
    special_tokens=True,
    reasoning="deepseek_v3",
)
_OPEN = (*_CALL, *_BEGIN, "<｜tool▁calls｜>")
_FUNCTION = tuple(f"{begin}function{sep}" for begin, sep in zip(_OPEN, (*_SEP, *_SEP, _SEP[0]), strict=True))
# V3 and R1: a fence around the arguments. Either sort of model may write the other's calls.
DEEPSEEK_V3 = replace(
    _BARE,
    name="deepseek_v3",
    call=tuple(f"{function}{{name}}\n```json\n" for function in _FUNCTION),
    call_end=(*(f"\n```{end}" for end in _CALL_END), *_CALL_END, "```"),
    also=(_BARE,),
)
DEEPSEEK_V31 = replace(_BARE, also=(DEEPSEEK_V3,))
MISTRAL = Format(
    name="mistral",
    body=Body.JSON,
    wrap=("[TOOL_CALLS]",),
    call=(
        "[TOOL_CALLS]{name}[ARGS]",
        "[TOOL_CALLS] {name} [ARGS]",
        "[TOOL_CALLS] {name} [CALL_ID] {id} [ARGS]",
        "[TOOL_CALLS] {name}",
    ),
    name_of=r"[A-Za-z0-9_.:/-]",
    objects=True,
    drop=("</s>",),
    lines=False,
    special_tokens=True,
    id_style="nine",
    native_id="{id}",
    reasoning="mistral",
)
PLAMO3 = Format(
    name="plamo3",
    body=Body.JSON,
    wrap=("<|plamo:begin_tool_requests:plamo|>",),
    wrap_end=("<|plamo:end_tool_requests:plamo|>",),
    one_wrap=True,
    call=(
        "<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>{name}<|plamo:end_tool_name:plamo|>"
        "<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>",
    ),
    call_end=(
        "<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>",
        "<|plamo:end_tool_request:plamo|>",
    ),
    lines=False,
    special_tokens=True,
    reasoning="plamo3",
)
FUNCTIONARY_V31 = Format(
    name="functionary_v31",
    body=Body.JSON,
    call=("<function={name}>",),
    call_end=("</function>",),
)
FUNCTIONARY_V32 = Format(
    name="functionary_v32",
    body=Body.JSON,
    call=(">>>{name}\n",),
    name_of=r"[A-Za-z0-9_.:/-]",
    drop=(">>>all\n",),
)
_HARMONY_ENDS = ("<|call|>", "<|end|>", "<|return|>")
HARMONY = Format(
    name="harmony",
    body=Body.JSON,
    call=(
        "<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>",
        "<|channel|>{channel} to=functions.{name} <|constrain|>json<|message|>",
        "<|channel|>{channel} to=functions.{name} json<|message|>",
        "<|channel|>{channel} to=functions.{name}<|message|>",
        "<|start|>assistant to=functions.{name}<|channel|>{channel} <|constrain|>json<|message|>",
        "<|start|>assistant to=functions.{name}<|channel|>{channel} json<|message|>",
        "<|start|>assistant to=functions.{name}<|channel|>{channel}<|message|>",
        "to=functions.{name}<|channel|>{channel} <|constrain|>json<|message|>",
        "to=functions.{name}<|channel|>{channel} json<|message|>",
        "to=functions.{name}<|channel|>{channel}<|message|>",
    ),
    call_end=("<|call|>",),
    name_of=r"[A-Za-z0-9_.:/-]",
    drop=(
        *_HARMONY_ENDS,
        "<|start|>assistant<|channel|>final<|message|>",
        "<|start|>assistant<|channel|>commentary<|message|>",
        "<|channel|>final<|message|>",
        "<|channel|>commentary<|message|>",
    ),
    lines=False,
    special_tokens=True,
    reasoning="harmony",
)
