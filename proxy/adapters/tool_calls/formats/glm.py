"""GLM-4.5 to 5.x, and models that write their arguments the same way."""

from dataclasses import replace

from proxy.adapters.tool_calls.format import Body, Format

GLM_XML = Format(
    name="glm_xml",
    body=Body.ELEMENTS,
    call=("<tool_call>{name}\n", "<tool_call>\n{name}\n"),
    call_end=("</tool_call>",),
    name_of=r"[A-Za-z0-9_.:/-]",
    argument=("<arg_key>{key}</arg_key>\n<arg_value>",),
    argument_end=("</arg_value>",),
    reasoning="glm45",
    interleaved=True,
)
# Laguna.
POOLSIDE_V1 = replace(GLM_XML, name="poolside_v1", lines=False, interleaved=False)
K2_HORIZON = Format(
    name="k2_horizon",
    body=Body.ELEMENTS,
    wrap=("<ifm|tool_calls>",),
    wrap_end=("</ifm|tool_calls>",),
    one_wrap=True,
    call=("<ifm|tool_call>{name}\n",),
    call_end=("</ifm|tool_call>",),
    name_of=GLM_XML.name_of,
    argument=("<ifm|arg_key>{key}</ifm|arg_key>\n<ifm|arg_value>",),
    argument_end=("</ifm|arg_value>",),
    drop=("<|ifm|im_end|>",),
    reasoning="k2_horizon",
)
# Hunyuan 3.
HY_V3 = replace(
    GLM_XML,
    name="hy_v3",
    wrap=("<tool_calls>",),
    wrap_end=("</tool_calls>",),
    one_wrap=True,
    call=("<tool_call>{name}<tool_sep>",),
    reasoning="think",
    interleaved=False,
)
