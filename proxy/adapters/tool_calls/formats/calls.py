"""Formats that write a call as code: Python's syntax, or a name with braces."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

# Llama 3.2 and 4, ToolACE: the whole message is a list of calls.
PYTHONIC = Format(
    name="pythonic",
    body=Body.PYTHON,
    wrap=("<|python_start|>", "<|python_tag|>"),
    wrap_end=("<|python_end|>",),
    drop=("<|python_end|>", "<|eot_id|>", "<|eom_id|>"),
    listed=True,
)
LLAMA4_PYTHONIC = replace(PYTHONIC, name="llama4_pythonic", drop=(*PYTHONIC.drop, "<|eom|>", "<|eot|>"))
OLMO3 = Format(
    name="olmo3",
    body=Body.PYTHON,
    wrap=("<function_calls>",),
    wrap_end=("</function_calls>",),
    bare=False,
    one_wrap=True,
    reasoning="olmo3",
)
LFM2 = Format(
    name="lfm2",
    body=Body.PYTHON,
    wrap=("<|tool_call_start|>",),
    wrap_end=("<|tool_call_end|>",),
    bare=False,
    objects=True,
    listed=True,
    lines=False,
    drop=("<|im_end|>",),
    special_tokens=True,
)
GEMMA4 = Format(
    name="gemma4",
    body=Body.BRACES,
    quote='<|"|>',
    call=("<|tool_call>call:{name}",),
    call_end=("<tool_call|>",),
    name_of=r"[A-Za-z0-9_.:/-]",
    drop=("<turn|>", "<|tool_response>"),
    lines=False,
    special_tokens=True,
    reasoning="gemma4",
)
FUNCTIONGEMMA = replace(
    GEMMA4,
    name="functiongemma",
    quote="<escape>",
    call=("<start_function_call>call:{name}",),
    call_end=("<end_function_call>",),
    drop=("<end_of_turn>", "<start_function_response>"),
    reasoning=None,
)
