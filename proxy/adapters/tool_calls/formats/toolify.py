"""The grammar that Toolify prompts for: JSON in CDATA behind a trigger, or one element per argument."""

from proxy.adapters.tool_calls.format import Body, Format

_ELEMENTS = Format(
    name="toolify_xml",
    body=Body.ELEMENTS,
    trigger=True,
    wrap=("<function_calls>",),
    wrap_end=("</function_calls>",),
    bare=False,
    call=("<function_call>\n<tool>{name}</tool>\n<args>",),
    call_end=("</args>\n</function_call>",),
    argument=("<{key}>",),
    key_of=r"[^<>/\s]",
    argument_end=("</{key}>",),
)
TOOLIFY_XML = Format(
    name="toolify_xml",
    body=Body.JSON,
    trigger=True,
    wrap=("<function_calls>",),
    wrap_end=("</function_calls>",),
    bare=False,
    one_wrap=True,
    call=(
        "<function_call>\n<tool>{name}</tool>\n<args_json><![CDATA[",
        "<function_call>\n<tool>{name}</tool>\n<args_json><![CDATA[\n```json",
        "<function_call>\n<tool>{name}</tool>\n<args_json>\n```json",
        "<function_call>\n<tool>{name}</tool>\n<args_json>",
        "<function_call>\n<tool>{name}</tool>",
    ),
    call_end=(
        "]]></args_json>\n</function_call>",
        "```\n]]></args_json>",
        "```\n</args_json>",
        "</args_json>",
        "</function_call>",
        "]]>",
    ),
    cdata=True,
    quiet=("<think>", "</think>"),
    also=(_ELEMENTS,),
)
