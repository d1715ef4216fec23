# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import Answer, Called, call, same_however_cut

CALLS = [
    ("<tool_call>now</tool_call>", "", [call("now")]),
    ("<tool_call>\nnow\n</tool_call>", "", [call("now")]),
    (
        "<tool_call>read\n<arg_key>path</arg_key>\n<arg_value>a b</arg_value>\n</tool_call>",
        "",
        [call("read", '{"path": "a b"}')],
    ),
    (
        "Both.<tool_call>read<arg_key>path</arg_key><arg_value>a</arg_value></tool_call>"
        "<tool_call>write<arg_key> line </arg_key><arg_value> 5 </arg_value>"
        '<arg_key>tags</arg_key><arg_value>[1, "x"]</arg_value></tool_call> And after.',
        "Both. And after.",
        [call("read", '{"path": "a"}'), call("write", '{"line": 5, "tags": [1, "x"]}')],
    ),
    # Values are verbatim, and end only where the next key or the call's end follows.
    (
        "<tool_call>read<arg_key>path</arg_key><arg_value>\n a </arg_value> b </tool_call> c\n</arg_value></tool_call>",
        "",
        [call("read", '{"path": "\\n a </arg_value> b </tool_call> c\\n"}')],
    ),
    (
        "<tool_call>read<arg_key>path</arg_key><arg_value>see <tool_call>now</tool_call> there</arg_value></tool_call>.",
        ".",
        [call("read", '{"path": "see <tool_call>now</tool_call> there"}')],
    ),
    (
        "<tool_call>read<arg_key>path</arg_key><arg_value>a</tool_call>",
        "",
        [call("read", '{"path": "a"}')],
    ),
    (
        "<tool_call>read<arg_key>path</arg_key><arg_value>a</arg_value><tool_call>now</tool_call>",
        "",
        [call("read", '{"path": "a"}'), call("now")],
    ),
    # Prose.
    ("Say `<tool_call>` and go on.", "Say `<tool_call>` and go on.", []),
    ("<tool_call>tool call", "<tool_call>tool call", []),
    ("<tool_call>now", "<tool_call>now", []),
    ("<tool_call>" + "n" * 300 + "</tool_call>", "<tool_call>" + "n" * 300 + "</tool_call>", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), CALLS)
def test_calls_and_content_are_told_apart(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("glm_xml", text) == Answer(content, "", calls)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "poolside_v1",
            "<tool_call>read<arg_key>path</arg_key><arg_value>a</arg_value></tool_call><tool_call>now</tool_call>",
        ),
        (
            "k2_horizon",
            "<ifm|tool_calls>\n<ifm|tool_call>read\n<ifm|arg_key>path</ifm|arg_key>\n<ifm|arg_value>a</ifm|arg_value>\n"
            "</ifm|tool_call>\n<ifm|tool_call>now\n</ifm|tool_call>\n</ifm|tool_calls><|ifm|im_end|>",
        ),
    ],
)
def test_relatives_differ_in_their_tags(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", [call("read", '{"path": "a"}'), call("now")])


def test_hunyuan_wraps_the_same_arguments() -> None:
    text = (
        "<tool_calls><tool_call>read<tool_sep>\n<arg_key>path</arg_key>\n<arg_value>a</arg_value>\n</tool_call>\n"
        "<tool_call>now<tool_sep></tool_call></tool_calls>"
    )

    assert same_however_cut("hy_v3", text) == Answer("", "", [call("read", '{"path": "a"}'), call("now")])
