"""Qwen3-Coder's grammar and its relatives, and the JSON of Hermes that the older ones write."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

# Qwen3-Coder, Qwen3.5 and later, Nemotron 3, Step 3.5. A bare <function=…> counts, and so does JSON.
QWEN3_XML = Format(
    name="qwen3_xml",
    body=Body.ELEMENTS,
    wrap=("<tool_call>",),
    wrap_end=("</tool_call>",),
    call=("<function={name}>",),
    call_end=("</function>",),
    argument=("<parameter={key}>",),
    argument_end=("</parameter>",),
    trim=True,
    objects=True,
    reasoning="qwen3",
)
# Values verbatim, everything on one line.
MIMO_XML = replace(QWEN3_XML, name="mimo_xml", trim=False, lines=False)
SEED_OSS = replace(
    QWEN3_XML,
    name="seed_oss",
    wrap=("<seed:tool_call>",),
    wrap_end=("</seed:tool_call>",),
    reasoning="seed_oss",
)

# Qwen2.5 and 3 chat, Hermes, Granite 4, Ling, Ring and many fine-tunes.
HERMES = Format(
    name="hermes",
    body=Body.OBJECTS,
    wrap=("<tool_call>",),
    wrap_end=("</tool_call>",),
    bare=False,
    reasoning="qwen3",
)
LONGCAT = replace(
    HERMES,
    name="longcat",
    wrap=("<longcat_tool_call>",),
    wrap_end=("</longcat_tool_call>",),
    reasoning="think",
)
ERNIE45 = replace(HERMES, name="ernie45", reasoning="ernie45")
REKA_EDGE = replace(HERMES, name="reka_edge", reasoning="think")
GRANITE_THINKING = replace(QWEN3_XML, name="granite_thinking", reasoning="granite_thinking")
