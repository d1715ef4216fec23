import json

import orjson
import pytest
from kit.chat import adapters, request, tool, whole

from proxy.adapters.history_native import repaired, short_id

TOOL = tool(
    "edit-file.v2",
    path={"type": "string"},
    count={"type": "integer"},
    options={"type": "object"},
    items={"type": "array"},
    flag={"type": "boolean"},
    nothing={"type": ["null", "string"]},
)
# What a history must not lose: a file's text, and strings that look like something else.
VALUES = [
    {"path": "plain"},
    {"path": "quotes \" and ' and \\ backslash \\n"},
    {"path": "a < b && c > d &amp; &lt;"},
    {"path": "x ]]> y <![CDATA[ z"},
    {"path": "\nnew lines at both ends\n"},
    {"path": "unicode é 世界 🚀 \u2028 \x85"},
    {"path": ""},
    {"path": "007"},
    {"path": "true"},
    {"path": "{}"},
    {"path": "a\n\n  b\tc\r\nd"},
    {},
    {"count": 12, "flag": False, "nothing": None},
    {"options": {"a": [1, {"b": "</parameter>"}], "é": ""}, "items": [[], {}, "x", 1.5, None]},
    {"path": "two", "count": -1},
]
FORMATS = [
    "qwen3_xml",
    "seed_oss",
    "mimo_xml",
    "glm_xml",
    "hermes",
    "anthropic_xml",
    "minimax_m2",
    "dsml",
    "toolify_xml",
    "kimi_k2",
    "deepseek_v31",
    "deepseek_v3",
    "mistral",
    "auto",
]


def call(name, arguments, id="call_1"):
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def said(*calls, content=None, **fields):
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **fields}


def answered(content, id="call_1", **fields):
    return {"role": "tool", "tool_call_id": id, "content": content, **fields}


def written(*messages, format="qwen3_xml", **options):
    """The messages behind the system message, in prompt mode."""
    body = request({"role": "user", "content": "go"}, *messages, tools=[TOOL])
    return adapters(format, mode="prompt", **options).plan(body).request(body)["messages"][2:]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("arguments", VALUES)
def test_a_call_in_the_history_reads_back_as_the_same_call(format, arguments):
    body = request({"role": "user", "content": "go"}, said(call("edit-file.v2", arguments)), tools=[TOOL])
    plan = adapters(format, mode="prompt").plan(body)

    text = plan.request(body)["messages"][2]["content"]

    message = orjson.loads(plan.answer_json(whole(text)))["choices"][0]["message"]
    functions = [made["function"] for made in message.get("tool_calls", ())]
    assert [(made["name"], json.loads(made["arguments"])) for made in functions] == [
        ("edit-file.v2", arguments)
    ]
    assert message["content"] is None


@pytest.mark.parametrize("format", FORMATS)
def test_several_calls_read_back_in_order(format):
    calls = [call("edit-file.v2", {"path": name}, id=name) for name in "abc"]
    body = request({"role": "user", "content": "go"}, said(*calls, content="First."), tools=[TOOL])
    plan = adapters(format, mode="prompt").plan(body)

    text = plan.request(body)["messages"][2]["content"]

    message = orjson.loads(plan.answer_json(whole(text)))["choices"][0]["message"]
    assert [json.loads(made["function"]["arguments"])["path"] for made in message["tool_calls"]] == list(
        "abc"
    )
    assert message["content"].strip() == "First."


def test_a_call_is_written_behind_the_text():
    (message,) = written(said(call("edit-file.v2", {"path": "a"}), content="Look:", refusal=None, name="bot"))

    assert message == {
        "role": "assistant",
        "name": "bot",
        "content": "Look:\n<tool_call>\n<function=edit-file.v2>\n<parameter=path>\na\n</parameter>\n"
        "</function>\n</tool_call>",
    }


@pytest.mark.parametrize("arguments", ['{"path": "cut of', "not json", "[1]", '"text"', "", "null"])
@pytest.mark.parametrize("format", FORMATS)
def test_arguments_that_are_no_object_are_no_error(arguments, format):
    (message,) = written(said(call("edit-file.v2", arguments)), format=format)

    assert "edit-file.v2" in message["content"]
    assert arguments in message["content"]


@pytest.mark.parametrize("arguments", [None, 5, {"path": "a"}])
def test_arguments_that_are_no_text_are_no_error(arguments):
    broken = {"id": "x", "function": {"name": "edit-file.v2", "arguments": arguments}}

    (message,) = written(said(broken))

    assert "<function=edit-file.v2>" in message["content"]


def test_calls_without_anything_are_no_error():
    messages = written(
        said({}, {"function": None}), said(None, "x"), {"role": "assistant", "tool_calls": "x"}
    )

    assert [message["role"] for message in messages] == ["assistant"] * 3


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("qwen3_xml", "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>"),
        ("glm_xml", "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>"),
        ("hermes", "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>"),
        ("minimax_m2", "<response>\nA\n</response>\n<response>\nB\n</response>"),
        (
            "dsml",
            "<function_results>\n<result>\nA\n</result>\n<result>\nB\n</result>\n</function_results>",
        ),
        (
            "anthropic_xml",
            "<function_results>\n<result>\n<tool_name>edit-file.v2</tool_name>\n<output>\nA\n</output>\n</result>\n"
            "<result>\n<tool_name>gone</tool_name>\n<output>\nB\n</output>\n</result>\n</function_results>",
        ),
        (
            "toolify_xml",
            'Result of the tool edit-file.v2, called with {"path": "a"}:\n<tool_result>\nA\n</tool_result>\n'
            "Result of the tool gone:\n<tool_result>\nB\n</tool_result>",
        ),
    ],
)
def test_neighbouring_results_become_one_user_message(format, expected):
    messages = written(
        said(call("edit-file.v2", {"path": "a"})), answered("A"), answered("B", id="gone"), format=format
    )

    assert messages[1:] == [{"role": "user", "content": expected}]


def test_results_stay_where_they_were():
    first, second = said(call("edit-file.v2", {}, id="1")), said(call("edit-file.v2", {}, id="2"))
    user = {"role": "user", "content": "next"}

    messages = written(first, answered("A", id="1"), second, answered("B", id="2"), user)

    assert [message["role"] for message in messages] == ["assistant", "user", "assistant", "user", "user"]
    assert messages[-1] is user


def test_a_results_pictures_stay_parts():
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [{"type": "text", "text": "one"}, picture, {"type": "text", "text": "two"}]

    messages = written(said(call("edit-file.v2", {})), answered(parts), answered("B"))

    assert messages[1]["content"] == [
        {
            "type": "text",
            "text": "<tool_response>\none\ntwo\n</tool_response>\n<tool_response>\nB\n</tool_response>",
        },
        picture,
    ]


def test_a_result_is_written_as_it_is():
    (_, message) = written(said(call("edit-file.v2", {})), answered("</tool_response> ]]> &lt; {x}"))

    assert "\n</tool_response> ]]> &lt; {x}\n" in message["content"]


@pytest.mark.parametrize("content", [None, "", []])
def test_an_empty_result_is_not_dropped(content):
    (_, message) = written(said(call("edit-file.v2", {})), answered(content))

    assert message["content"] == "<tool_response>\n\n</tool_response>"


def test_the_older_form_of_calls_and_results_is_understood():
    old = {"role": "assistant", "content": None, "function_call": {"name": "edit-file.v2", "arguments": "{}"}}

    messages = written(
        old, {"role": "function", "name": "edit-file.v2", "content": "A"}, format="anthropic_xml"
    )

    assert '<invoke name="edit-file.v2">' in messages[0]["content"]
    assert "<tool_name>edit-file.v2</tool_name>" in messages[1]["content"]


def test_messages_without_tools_are_the_same_objects():
    plain = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}, "odd"]
    plain += [{"role": role, "content": "z"} for role in (["tool"], {}, 5)]

    assert all(new is old for new, old in zip(written(*plain), plain, strict=True))


def test_toolifys_mark_stands_in_front_of_the_calls():
    (message,) = written(
        said(call("edit-file.v2", {})), format="toolify_xml", trigger="<Function_AB1c_Start/>"
    )

    assert message["content"].startswith("<Function_AB1c_Start/>\n<function_calls>")


# for a template that renders calls itself


def test_a_sound_history_is_left_alone():
    messages = [said(call("f", {"a": 1})), answered("x"), {"role": "user", "content": "y"}, "odd"]

    assert repaired(messages) is messages


@pytest.mark.parametrize("arguments", ['{"a": "cut', "", "[1]", '"x"', "nan"])
def test_arguments_that_templates_cannot_walk_become_an_empty_object(arguments):
    sound = call("g", {"a": 1}, id="2")

    (message,) = repaired([said(call("f", arguments), sound)])

    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert message["tool_calls"][1] is sound


def test_arguments_that_are_an_object_become_the_text_of_one():
    broken = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}

    (message,) = repaired(
        [said(broken, {"id": "2"}, {"id": "3", "function": {"name": "g", "arguments": None}})]
    )

    arguments = [made.get("function", {}).get("arguments") for made in message["tool_calls"]]
    assert arguments == ['{"a":"é"}', None, "{}"]


def test_an_empty_list_of_calls_goes():
    assert repaired([{"role": "assistant", "content": "x", "tool_calls": []}]) == [
        {"role": "assistant", "content": "x"}
    ]
    assert repaired([{"role": "assistant", "content": "x", "tool_calls": None}]) == [
        {"role": "assistant", "content": "x"}
    ]


def test_foreign_ids_become_nine_characters_that_still_match():
    long, short = "call_0123456789abcdefghijklmn", "AbCdEf123"
    messages = [
        said(call("f", {}, id=long), call("f", {}, id=short)),
        answered("x", id=long),
        answered("y", id=short),
    ]

    assistant, first, second = repaired(messages, nine=True)

    ids = [made["id"] for made in assistant["tool_calls"]]
    assert ids == [first["tool_call_id"], short]
    assert second["tool_call_id"] == short
    assert len(ids[0]) == 9
    assert ids[0].isalnum()
    assert repaired(messages) is messages


def test_a_result_without_an_id_is_no_error():
    message = {"role": "tool", "content": "x"}

    assert repaired([message], nine=True)[0] is message


def test_short_ids_do_not_change_and_long_ones_always_map_alike():
    assert short_id("abcdefghi") == "abcdefghi"
    assert short_id("call_1") == short_id("call_1") != short_id("call_2")
    assert len(short_id("é" * 9)) == 9
    assert short_id("\ud800").isalnum()
