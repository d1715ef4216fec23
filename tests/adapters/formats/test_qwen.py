# ruff: noqa: E501  # a vector reads best on one line
import json

import pytest
from kit.scans import TOOLS, Answer, Called, call, run, same_however_cut, scanner, tool


def written(content: str) -> str:
    return (
        "<tool_call>\n<function=write>\n<parameter=content>\n"
        f"{content}\n</parameter>\n</function>\n</tool_call>"
    )


CALLS = [
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>",
        "",
        [call("read", '{"path": "a.py"}')],
    ),
    ("<tool_call>\n<function=now>\n</function>\n</tool_call>", "", [call("now")]),
    ("<function=now></function>", "", [call("now")]),
    (
        "First.\n\n<function=read>\n<parameter=path>\na\n</parameter>\n</function>\n</tool_call>\nThen.",
        "First.\n\n\nThen.",
        [call("read", '{"path": "a"}')],
    ),
    (
        "<tool_call>\n<function=now>\n</function>\n<function=read>\n<parameter=path>b</parameter></function>\n"
        "</tool_call>\n<tool_call><function=now></function></tool_call>\n",
        "",
        [call("now"), call("read", '{"path": "b"}'), call("now")],
    ),
    (
        "<tool_call><function=write><parameter=line>\n 7 \n</parameter><parameter=force>True</parameter>"
        '<parameter=tags>[\'a\', "b"]</parameter><parameter=meta>{"k": [1]}</parameter>'
        "<parameter=note>null</parameter></function></tool_call>",
        "",
        [call("write", '{"line": 7, "force": true, "tags": ["a", "b"], "meta": {"k": [1]}, "note": null}')],
    ),
    # A closing tag that was forgotten: of a value, of the call, of both.
    (
        "<tool_call>\n<function=write>\n<parameter=path>\na\n<parameter=line>\n1\n</parameter>\n</function>\n"
        "</tool_call>",
        "",
        [call("write", '{"path": "a", "line": 1}')],
    ),
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na\n</function>\n</tool_call>",
        "",
        [call("read", '{"path": "a"}')],
    ),
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n</tool_call>",
        "",
        [call("read", '{"path": "a"}')],
    ),
    ("<tool_call>\n<function=read>\n<parameter=path>\na\n</tool_call>", "", [call("read", '{"path": "a"}')]),
    ("<tool_call>\n<function=read>\n<parameter=path>\na", "", [call("read", '{"path": "a"}')]),
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n</tool_c",
        "",
        [call("read", '{"path": "a"}')],
    ),
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n<function=now>\n</function>\n</tool_call>",
        "",
        [call("read", '{"path": "a"}'), call("now")],
    ),
    (
        "<tool_call>\n<function=read>\n<parameter=path>\na\n</function>\n</tool_call>\nThen.",
        "\nThen.",
        [call("read", '{"path": "a"}')],
    ),
    # The same key twice: both are written, and in JSON the last one counts.
    (
        "<function=read><parameter=path>a</parameter><parameter=path>b</parameter></function>",
        "",
        [call("read", '{"path": "a", "path": "b"}')],
    ),
    # JSON in the wrap or in the function.
    ('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "", [call("now")]),
    ('<tool_call><function=read>{"path": "a"}</function></tool_call>', "", [call("read", '{"path": "a"}')]),
    # Prose about the markup.
    ("Write `<tool_call>` to start. Then go on…", "Write `<tool_call>` to start. Then go on…", []),
    ("The tag <tool_call> opens a call.", "The tag <tool_call> opens a call.", []),
    ("<function=now> is how it begins", "<function=now> is how it begins", []),
    ("Close with </tool_call> then.", "Close with </tool_call> then.", []),
    ("<tool_call>\n<function=now>", "<tool_call>\n<function=now>", []),
    ("a < b and c > d", "a < b and c > d", []),
    (" \n\n", " \n\n", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), CALLS)
def test_calls_and_content_are_told_apart(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("qwen3_xml", text) == Answer(content, "", calls)


CONTENTS = [
    "use </parameter> to close",
    "a </function> b </tool_call> c",
    '<think>x</think> &amp; &lt;b&gt; ]]> \\ " \t',
    "one\n\n",
    "\n\none",
    "",
    "\n",
    "ends with </parameter>",
    "ends with\n</parameter>",
    "</parameter>\n</function>\nmore",
    "x\n<parameter=other>\ny",
    "an example:\n<tool_call>\n<function=read>\n<parameter=path>\nq\n</parameter>\n</function>\n</tool_call>\nend",
    "<function=now>\n</function>",
    "<tool_call><function=now></function></tool_call><tool_call><function=now></function></tool_call>",
    "<function=read><parameter=path><function=now></function></parameter></function> twice",
    "<function=read> is prose, and so is <parameter=path>",
    "日本語 🙂 \u2028 é",
]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_arrives_as_it_was_written(content: str) -> None:
    answer = same_however_cut("qwen3_xml", written(content) + "\nDone.")

    assert answer.content == "\nDone."
    assert [(c.name, json.loads(c.arguments)) for c in answer.calls] == [("write", {"content": content})]


def test_an_example_without_end_ends_with_the_text() -> None:
    content = "begin with\n<tool_call>\n<function=read>\n<parameter=path>\nso"

    answer = same_however_cut("qwen3_xml", written(content))

    assert [json.loads(c.arguments) for c in answer.calls] == [{"content": content}]


def test_a_string_that_might_be_null_streams_as_soon_as_it_cannot() -> None:
    scan = scanner("qwen3_xml", TOOLS)
    scan.feed("<function=write><parameter=note>nu")

    said = scan.feed("mber one")

    assert [event.text for event in said if hasattr(event, "text")] == ['{"note": "number one']


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ("[1, 2]", '{"x": [1, 2]}'),
        ("[1, 2", '{"x": "[1, 2"}'),
        ("word", '{"x": "word"}'),
        (" \n", '{"x": " \\n"}'),
    ],
)
def test_a_list_or_a_string_is_told_by_how_it_begins_and_ends(value: str, arguments: str) -> None:
    text = f"<function=f><parameter=x>{value}</parameter></function>"

    answer = same_however_cut("mimo_xml", text, tools=[tool("f", x={"type": ["array", "string"]})])

    assert answer.calls == [call("f", arguments)]


def test_blanks_that_never_end_do_not_wait_for_a_null() -> None:
    scan = scanner("qwen3_xml", TOOLS)

    said = scan.feed("<function=write><parameter=note>" + " " * 5000 + "null")

    assert [event.text for event in said if hasattr(event, "text")] == ['{"note": "' + " " * 5000 + "null"]


@pytest.mark.parametrize("size", [1, 1000, 7000])
def test_a_long_list_is_one_however_it_comes(size: int) -> None:
    value = "[" + "1," * 3000 + "2]"
    text = f"<function=f><parameter=x>{value}</parameter></function>"
    tools = [tool("f", x={"type": ["array", "string"]})]

    answer = run(scanner("mimo_xml", tools), [text[at : at + size] for at in range(0, len(text), size)])

    assert answer.calls == [call("f", '{"x": ' + value + "}")]


def test_a_cut_answer_keeps_what_was_streamed() -> None:
    text = "<tool_call>\n<function=read>\n<parameter=path>\na.p"

    answer = same_however_cut("qwen3_xml", text, truncated=True)

    assert answer.calls == [Called("read", '{"path": "a.p')]


def test_a_cut_answer_keeps_the_calls_that_are_whole() -> None:
    text = "<function=now></function><function=write><parameter=line>1"

    answer = same_however_cut("qwen3_xml", text, truncated=True)

    assert answer.calls == [call("now"), Called("write")]


def test_a_head_is_no_next_argument_if_the_tool_has_none_of_that_name() -> None:
    inner = "x\n<parameter=content>\ny\n<parameter=elsewhere>\nz"

    answer = same_however_cut("qwen3_xml", written(inner))

    assert [json.loads(c.arguments) for c in answer.calls] == [{"content": inner}]


def test_a_head_is_the_next_argument_if_nothing_is_known_of_the_tool() -> None:
    text = "<function=f><parameter=a>1\n<parameter=b>2</parameter></function>"

    answer = same_however_cut("qwen3_xml", text, tools=[])

    assert answer.calls == [call("f", '{"a": "1", "b": "2"}')]


def test_a_value_too_long_to_hold_goes_out_as_a_string() -> None:
    size = 1024 * 1024 + 10
    text = "<function=write><parameter=meta>{" + "x" * size + "}</parameter></function>"
    scan = scanner("qwen3_xml", TOOLS)

    events = scan.feed(text[: size // 2]) + scan.feed(text[size // 2 :]) + scan.finish()

    assert "".join(e.text for e in events if hasattr(e, "text")) == '{"meta": "{' + "x" * size + '}"}'
    assert scan.repaired == 1
    assert scan.held_high_water > 500_000


def test_names_stay_as_they_are_written() -> None:
    text = '<tool_call><function="a b"><parameter=x>1</parameter></function></tool_call>'

    answer = same_however_cut("qwen3_xml", text, tools=[tool("f")])

    assert answer.calls == [call('"a b"', '{"x": "1"}')]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed_oss", "<seed:tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n</function>\n</seed:tool_call>"),
        ("mimo_xml", "<tool_call><function=read><parameter=path>a</parameter></function></tool_call>"),
        ("granite_thinking", "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n</function>\n</tool_call>"),
    ],
)  # fmt: skip
def test_relatives_differ_in_their_wrap(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", [call("read", '{"path": "a"}')])


def test_mimo_keeps_the_line_breaks_of_values() -> None:
    text = "<tool_call><function=read><parameter=path>\na\n</parameter></function></tool_call>"

    assert same_however_cut("mimo_xml", text).calls == [call("read", '{"path": "\\na\\n"}')]
