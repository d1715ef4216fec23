import itertools

import pytest
from kit.chat import TOOLS, adapters, request, tool

from proxy.adapters.prompt import derived_trigger, filled, with_system
from proxy.adapters.prompt_styles import style_of
from proxy.adapters.tool_calls.format import Body
from proxy.adapters.tool_calls.formats import KINDS

RICH = tool(
    "find-it",
    query={"type": "string", "description": " What to look for. ", "minLength": 1},
    **{
        "-i": {"type": ["boolean", "null"]},
        "where": {
            "type": "array",
            "items": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
        "free": {},
        "odd": True,
    },
)
RICH["function"]["parameters"] |= {"required": ["query"], "additionalProperties": False}


def prompt(format="qwen3_xml", tools=TOOLS, **options):
    body = request(tools=tools, **options.pop("asked", {}))
    return adapters(format, mode="prompt", **options).plan(body).request(body)["messages"][0]["content"]


@pytest.mark.parametrize("format", [name for name, format in KINDS.items() if format.body is not Body.NONE])
def test_every_format_can_be_asked_for(format):
    text = prompt(format)

    assert text.startswith("# Tools\n")
    for word in ("write", "read", "path", "content", "times", "integer", "TOOL_NAME", "PARAMETER_1"):
        assert word in text


@pytest.mark.parametrize(
    "format", ["qwen3_xml", "hermes", "minimax_m2", "dsml", "toolify_xml", "anthropic_xml"]
)
def test_prompts_of_a_format_do_not_change(format):
    assert prompt(format) == prompt(format)


def test_the_order_of_tools_and_keys_is_the_clients():
    for first, second in itertools.permutations(TOOLS, 2):
        text = prompt("hermes", tools=[first, second])
        assert text.index(f'"name":"{first["function"]["name"]}"') < text.index(
            f'"name":"{second["function"]["name"]}"'
        )


def test_hermes_models_see_a_json_object_on_each_line():
    assert (
        '<tools>\n{"type":"function","function":{"name":"read","description":"Does read.","parameters":'
        '{"type":"object","properties":{"path":{"type":"string"}}}}}\n</tools>'
    ) in prompt("hermes", tools=TOOLS[1:])


def test_qwen_models_see_elements():
    assert style_of("qwen3_xml").tools([RICH]) == "\n".join(
        (
            "<tools>",
            "<function>",
            "<name>find-it</name>",
            "<description>Does find-it.</description>",
            "<parameters>",
            "<parameter>",
            "<name>query</name>",
            "<type>string</type>",
            "<description>What to look for.</description>",
            "<minLength>1</minLength>",
            "</parameter>",
            "<parameter>",
            "<name>-i</name>",
            '<type>["boolean","null"]</type>',
            "</parameter>",
            "<parameter>",
            "<name>where</name>",
            "<type>array</type>",
            '<items>{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}</items>',
            "</parameter>",
            "<parameter>",
            "<name>free</name>",
            "</parameter>",
            "<parameter>",
            "<name>odd</name>",
            "</parameter>",
            '<required>["query"]</required>',
            "<additionalProperties>false</additionalProperties>",
            "</parameters>",
            "</function>",
            "</tools>",
        )
    )


def test_toolify_lists_tools_for_people():
    assert style_of("toolify_xml").tools([RICH]) == "\n".join(
        (
            "1. find-it",
            "   Description:",
            "```",
            "Does find-it.",
            "```",
            "   Parameters: query (string), -i (boolean or null), where (array), free (any), odd (any)",
            "   Required: query",
            "   - query: string, required",
            "     What to look for.",
            "     minLength: 1",
            "   - -i: boolean or null, optional",
            "   - where: array, optional",
            "     - each item: object, required",
            "       - path: string, required",
            "   - free: any, optional",
            "   - odd: any, optional",
        )
    )


@pytest.mark.parametrize("format", ["qwen3_xml", "toolify_xml", "hermes", "minimax_m2", "dsml"])
@pytest.mark.parametrize(
    "function",
    [
        {"name": "f"},
        {"name": "f", "parameters": None},
        {"name": "f", "parameters": {}},
        {"name": "f", "parameters": {"properties": None, "required": None}},
        {"name": "f", "parameters": {"properties": {"a": {"properties": {"b": 1}, "required": 7}}}},
        {"name": "f", "parameters": {"properties": {"a": {}}, "required": True}},
        {"name": "f", "strict": True},
        {},
        None,
    ],
)
def test_tools_of_any_shape_are_shown(format, function):
    assert style_of(format).tools([{"type": "function", "function": function}])


def test_a_schema_that_goes_deep_is_cut():
    schema = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"deeper": schema}}

    assert style_of("toolify_xml").tools([tool("f", top=schema)]).count("deeper") < 12


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"tool_choice": "required"}, "must call at least one tool"),
        ({"tool_choice": {"function": {"name": "read"}}}, "must call the tool read"),
        ({"parallel_tool_calls": False}, "at most one tool"),
    ],
)
def test_what_the_request_asks_for_is_said(asked, sentence):
    assert sentence in prompt(asked=asked)
    assert sentence in prompt(asked=asked, prompt="Own text: {tools}")
    assert sentence not in prompt()


def test_a_named_tool_is_the_only_one_listed():
    text = prompt(asked={"tool_choice": {"function": {"name": "read"}}})

    assert "<name>read</name>" in text
    assert "<name>write</name>" not in text


# a template of the user's


def test_a_template_replaces_our_text_and_may_hold_braces():
    template = 'Use {tools_list}\nafter {trigger_signal}: {"a": {}} {unknown} {tools {trigger}}\n'

    text = prompt("toolify_xml", tools=TOOLS[1:], prompt=template, trigger="<Function_AB1c_Start/>")

    tools = style_of("toolify_xml").tools(TOOLS[1:])
    assert text == (
        f"Use {tools}\nafter <Function_AB1c_Start/>: "
        '{"a": {}} {unknown} {tools <Function_AB1c_Start/>}'
    )


def test_what_a_template_is_filled_with_is_not_searched_again():
    assert filled("{tools}{trigger}{example}", tools="{trigger}", trigger="t", example="e") == "{trigger}te"


def test_a_template_may_show_the_example():
    assert "<function=TOOL_NAME>" in prompt(prompt="{example}")


# the system message


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], [{"role": "system", "content": "T"}]),
        (
            [{"role": "user", "content": "u"}],
            [{"role": "system", "content": "T"}, {"role": "user", "content": "u"}],
        ),
        ([{"role": "system", "content": "s"}], [{"role": "system", "content": "s\n\nT"}]),
        ([{"role": "developer", "content": "s"}], [{"role": "developer", "content": "s\n\nT"}]),
        ([{"role": "system", "content": None}], [{"role": "system", "content": "T"}]),
        (
            [{"role": "system", "content": [{"type": "text", "text": "s"}], "name": "n"}],
            [
                {
                    "role": "system",
                    "content": [{"type": "text", "text": "s"}, {"type": "text", "text": "T"}],
                    "name": "n",
                }
            ],
        ),
    ],
)
def test_there_is_one_system_message(messages, expected):
    assert with_system(messages, "T") == expected


# toolify's mark


def test_a_derived_mark_is_the_conversations_own():
    trigger = derived_trigger(TOOLS, b"secret")

    assert trigger == derived_trigger(list(TOOLS), b"secret")
    assert trigger != derived_trigger(TOOLS, b"another")
    assert trigger != derived_trigger(TOOLS[1:], b"secret")
    assert len(trigger) == len("<Function_AB1c_Start/>")
    assert trigger[10:14].isalnum()


def test_the_mark_does_not_change_where_one_tool_is_named():
    named = prompt("toolify_xml", asked={"tool_choice": {"function": {"name": "read"}}})

    assert derived_trigger(TOOLS, b"secret") in prompt("toolify_xml")
    assert derived_trigger(TOOLS, b"secret") in named


def test_a_configured_mark_is_used():
    assert "<Function_AB1c_Start/>" in prompt("toolify_xml", trigger="<Function_AB1c_Start/>")
