"""Formats whose calls are <invoke name="…"> with <parameter name="…">."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

# Claude's grammar, for prompts to models without training of their own. Prose may
# hold it, so a tool that the request does not have stays text.
ANTHROPIC_XML = Format(
    name="anthropic_xml",
    body=Body.ELEMENTS,
    wrap=("<function_calls>",),
    wrap_end=("</function_calls>",),
    one_wrap=True,
    call=('<invoke name="{name}">',),
    call_end=("</invoke>",),
    argument=('<parameter name="{key}">',),
    argument_end=("</parameter>",),
    fold=True,
    unknown_tools="text",
)
MINIMAX_M2 = replace(
    ANTHROPIC_XML,
    name="minimax_m2",
    wrap=("<minimax:tool_call>",),
    wrap_end=("</minimax:tool_call>",),
    fold=False,
    unknown_tools="forward",
    reasoning="minimax_m2",
    interleaved=True,
)
DOTS = replace(
    ANTHROPIC_XML,
    name="dots",
    wrap=("<dots_function_call>",),
    wrap_end=("</dots_function_call>",),
    drop=("</dots_function_call>",),
    fold=False,
    unknown_tools="forward",
)
MINICPM5_XML = Format(
    name="minicpm5_xml",
    body=Body.ELEMENTS,
    call=('<function name="{name}">',),
    call_end=("</function>",),
    argument=('<param name="{key}">',),
    argument_end=("</param>",),
)
# DeepSeek V3.2 (function_calls), V4 (tool_calls) and V4.1 (a blank behind the bar), with the openers that
# models misspell. White space in a tag may be missing, so one spelling with it serves all three.
DSML = Format(
    name="dsml",
    body=Body.ELEMENTS,
    wrap=(
        "<｜DSML｜function_calls>",
        "<｜DSML｜ tool_calls>",
        "<｜DSML｜ calls>",
        "<｜DSML｜ toolcalls>",
        "<｜DSML｜ tool>",
    ),
    wrap_end=(
        "</｜DSML｜function_calls>",
        "</｜DSML｜ tool_calls>",
        "</｜DSML｜ calls>",
        "</｜DSML｜ toolcalls>",
        "</｜DSML｜ tool>",
    ),
    one_wrap=True,
    call=('<｜DSML｜invoke name="{name}">', '<｜DSML｜ invoke name="{name}">'),
    call_end=("</｜DSML｜invoke>", "</｜DSML｜ invoke>"),
    argument=(
        '<｜DSML｜parameter name="{key}" string="{type}">',
        '<｜DSML｜ parameter name="{key}" string="{type}">',
        '<｜DSML｜ parameter name="{key}">',
    ),
    argument_end=("</｜DSML｜parameter>", "</｜DSML｜ parameter>"),
    unwrap=("arguments", "input"),
    drop=("<｜end▁of▁sentence｜>",),
    special_tokens=True,
    reasoning="deepseek_v3",
    interleaved=True,
)
STEP3 = Format(
    name="step3",
    body=Body.ELEMENTS,
    wrap=("<｜tool_calls_begin｜>",),
    wrap_end=("<｜tool_calls_end｜>",),
    one_wrap=True,
    call=(
        '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="{name}">',
        '<｜tool_call_begin｜><steptml:invoke name="{name}">',
        '<steptml:invoke name="{name}">',
    ),
    call_end=("</steptml:invoke>\n<｜tool_call_end｜>", "</steptml:invoke>"),
    argument=('<steptml:parameter name="{key}">',),
    argument_end=("</steptml:parameter>",),
    drop_late=("<｜tool_call_end｜>", "<｜tool_calls_end｜>"),
    lines=False,
    special_tokens=True,
    reasoning="deepseek_r1",
)
# Every tag of MiniMax M3 stands behind the same prefix, and arguments are elements of their own name.
MINIMAX_M3 = Format(
    name="minimax_m3",
    body=Body.TREE,
    prefix="]<]minimax[>[",
    wrap=("]<]minimax[>[<tool_call>",),
    wrap_end=("]<]minimax[>[</tool_call>",),
    one_wrap=True,
    call=(']<]minimax[>[<invoke name="{name}">',),
    call_end=("]<]minimax[>[</invoke>",),
    argument=("]<]minimax[>[<{key}>",),
    argument_end=("]<]minimax[>[</{key}>",),
    special_tokens=True,
    reasoning="minimax_m3",
    interleaved=True,
)
