"""Formats whose calls are JSON objects with a name and arguments, alone or in a list."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

_LIST = Format(name="", body=Body.OBJECTS, bare=False, listed=True, one_wrap=True, lines=False)
_ONE = replace(_LIST, listed=False, one_wrap=False)
_THINK = ("<think>", "</think>")

# Llama 3: the whole message is the object, and several are separated by semicolons.
LLAMA3_JSON = replace(
    _ONE,
    name="llama3_json",
    wrap=("<|python_tag|>",),
    bare=True,
    one_wrap=True,
    between="; ",
    arguments_keys=("parameters", "arguments"),
    drop=("<|eot_id|>", "<|eom_id|>"),
)
JSON_BARE = replace(_LIST, name="json_bare", bare=True, name_keys=("name", "function"))
XLAM = replace(
    _LIST,
    name="xlam",
    wrap=("```json", "[TOOL_CALLS]", "<tool_call>"),
    wrap_end=("```", "</tool_call>"),
    bare=True,
)
# 3.x in a list; the 20b function-calling model writes one object per <function_call>.
GRANITE = replace(
    _LIST,
    name="granite",
    wrap=("<|tool_call|>", "<tool_call>", "<function_call>"),
    wrap_end=("</tool_call>",),
    drop=("<|end_of_text|>",),
    special_tokens=True,
    reasoning="granite",
)
MINIMAX_M1 = replace(
    _ONE,
    name="minimax_m1",
    wrap=("<tool_calls>",),
    wrap_end=("</tool_calls>",),
    one_wrap=True,
    lines=True,
    quiet=_THINK,
)
JAMBA = replace(_LIST, name="jamba", wrap=("<tool_calls>",), wrap_end=("</tool_calls>",), special_tokens=True)
HUNYUAN_A13B = replace(
    _LIST,
    name="hunyuan_a13b",
    wrap=("<tool_calls>",),
    wrap_end=("</tool_calls>",),
    quiet=_THINK,
    reasoning="hunyuan_a13b",
)
INTERNLM2 = replace(
    _ONE,
    name="internlm2",
    wrap=("<|action_start|> <|plugin|>",),
    wrap_end=("<|action_end|>",),
    special_tokens=True,
)
PHI4MINI = replace(_LIST, name="phi4mini", wrap=("functools",))
FIREFUNCTION = replace(PHI4MINI, name="firefunction")
APRIEL = replace(JAMBA, name="apriel", special_tokens=False)
NEMOTRON_V2_JSON = replace(_LIST, name="nemotron_v2_json", wrap=("<TOOLCALL>",), wrap_end=("</TOOLCALL>",))
GIGACHAT3 = replace(
    _ONE,
    name="gigachat3",
    wrap=(
        "<|function_call|>",
        "<|message_sep|> function call<|role_sep|>",
        "function call<|role_sep|>",
        "function call",
    ),
    drop=("</s>",),
    special_tokens=True,
)
APERTUS = replace(
    _LIST,
    name="apertus",
    wrap=("<|tools_prefix|>",),
    wrap_end=("<|tools_suffix|>",),
    keyed=True,
    special_tokens=True,
)
INKLING = replace(
    _ONE,
    name="inkling",
    wrap=("<|content_invoke_tool_json|>",),
    wrap_end=("<|end_message|>",),
    arguments_keys=("args",),
    drop=("<|end_message|>", "<|message_model|>", "<|content_text|>"),
    special_tokens=True,
)
COHERE = replace(
    _LIST,
    name="cohere",
    wrap=("<|START_ACTION|>",),
    wrap_end=("<|END_ACTION|>",),
    name_keys=("tool_name", "name"),
    arguments_keys=("parameters", "arguments"),
    drop=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),
    special_tokens=True,
    reasoning="cohere",
)
