"""What holds for the scanner whatever the format."""

import pytest
from kit.scans import TOOLS, Answer, call, run, same_however_cut, scanner, tool

from proxy.adapters.events import CallArguments, CallEnd, CallStart, Text
from proxy.adapters.tool_calls.output import MAX_CALLS, Output
from proxy.adapters.tool_calls.tools import Tools

NOW = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
RM = '<tool_call>{"name": "rm", "arguments": {"x": 1}}</tool_call>'
XML_RM = "<tool_call><function=rm></function></tool_call>"


def test_one_feed_says_everything_once() -> None:
    scan = scanner("hermes", TOOLS)

    assert scan.feed(f"Hi.{NOW} and {NOW}") == [
        Text("Hi."),
        CallStart(0, "call_0", "now"),
        CallArguments(0, "{}"),
        CallEnd(0),
        Text(" and "),
        CallStart(1, "call_1", "now"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]
    assert scan.finish() == []


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml"])
@pytest.mark.parametrize("text", [RM, XML_RM])
def test_unknown_tools_are_forwarded_or_stay_text(name: str, text: str) -> None:
    if name == "hermes" and text == XML_RM:
        return
    forwarding = scanner(name, TOOLS)

    assert [c.name for c in run(forwarding, [text]).calls] == ["rm"]
    assert forwarding.unknown == 1 and forwarding.calls == 1
    assert same_however_cut(name, text, unknown_tools="text") == Answer(text)


def test_a_named_choice_makes_the_others_unknown() -> None:
    scan = scanner("hermes", TOOLS, named="read")

    assert [c.name for c in run(scan, [NOW]).calls] == ["now"]
    assert scan.unknown == 1
    assert same_however_cut("hermes", NOW, named="read", unknown_tools="text") == Answer(NOW)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", NOW + RM + NOW + " end"),
        ("qwen3_xml", "<function=now></function><function=read><parameter=path>x</parameter></function> end"),
        ("pythonic", "[now(), read(path='x')] end"),
    ],
)
def test_only_the_first_of_several_calls_is_kept_if_asked(name: str, text: str) -> None:
    scan = scanner(name, TOOLS, single=True)

    assert run(scan, [text]) == Answer(" end", "", [call("now")])
    assert scan.calls == 1 and scan.dropped >= 1
    assert same_however_cut(name, text, single=True) == Answer(" end", "", [call("now")])


def test_an_answer_has_so_many_calls_and_no_more() -> None:
    scan = scanner("hermes", TOOLS)

    answer = run(scan, [NOW * (MAX_CALLS + 2)])

    assert len(answer.calls) == scan.calls == MAX_CALLS
    assert scan.dropped == 2


def test_repairs_are_counted() -> None:
    scan = scanner("hermes", TOOLS)

    run(scan, ['<tool_call>{"name": "now", "arguments": {"x": "a\nb"</tool_call>'])

    assert scan.repaired == 2


def test_what_is_held_is_measured() -> None:
    scan = scanner("qwen3_xml", TOOLS)

    scan.feed("<function=write><parameter=meta>{" + "x" * 100)

    assert 100 < scan.held_high_water < 200


def test_nothing_is_held_while_a_string_streams() -> None:
    scan = scanner("qwen3_xml", TOOLS)
    scan.feed("<function=write><parameter=content>")

    for _ in range(1000):
        scan.feed("line < of > code\n")

    assert scan.held_high_water < 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"\n\n{NOW}\n\n", Answer("", "", [call("now")])),
        (f"  text \n{NOW}\n \n{NOW} \n", Answer("  text \n", "", [call("now"), call("now")])),
        (f"{NOW}\n\ntext", Answer("\n\ntext", "", [call("now")])),
        ("\n\ntext", Answer("\n\ntext")),
        ("\n\n", Answer("\n\n")),
    ],
)
def test_white_space_alone_is_no_content_beside_calls(text: str, expected: Answer) -> None:
    assert same_however_cut("hermes", text) == expected


def test_so_much_white_space_is_content() -> None:
    space = " " * 1025

    assert run(scanner("hermes"), [space + NOW]) == Answer(space, "", [call("now")])
    assert run(scanner("hermes"), list(space + NOW)) == Answer(space, "", [call("now")])


@pytest.mark.parametrize("text", [f"{NOW[:-12]}</tool_c", f"{NOW}</tool"])
def test_the_beginning_of_an_end_behind_a_call_is_no_content(text: str) -> None:
    assert same_however_cut("hermes", text) == Answer("", "", [call("now")])


def test_a_closing_tag_without_a_call_is_content() -> None:
    assert same_however_cut("hermes", f"{NOW} text </tool_call>") == Answer(
        " text </tool_call>", "", [call("now")]
    )


def test_ids_are_asked_for_once_per_call() -> None:
    answer = run(scanner("hermes", TOOLS), [NOW, NOW])

    assert [c.id for c in answer.calls] == ["call_0", "call_1"]


def test_a_call_known_in_another_case_gets_the_tools_own_name() -> None:
    text = '<invoke name="READ_FILE"></invoke>'

    assert same_however_cut("anthropic_xml", text, tools=[tool("Read_File")]).calls == [call("Read_File")]


def test_an_empty_piece_of_arguments_is_not_said() -> None:
    output = Output(Tools([]), lambda: "id")

    output.start("f")
    output.arguments("")
    output.text("")

    assert output.take() == [CallStart(0, "id", "f")]


@pytest.mark.parametrize(
    ("text", "trusted"),
    [
        (NOW, True),
        (RM, False),
        (NOW[:20], "more"),
        ("<tool_call> prose", False),
        ("text", False),
    ],
)
def test_a_call_in_the_thinking_must_name_a_tool(text: str, trusted: bool | str) -> None:
    scan = scanner("hermes", TOOLS)

    found = scan.opens(text, 0, False)

    assert found is trusted or (trusted == "more" and found not in (True, False))


def test_special_tokens_need_no_known_name() -> None:
    text = "[TOOL_CALLS]rm[ARGS]{}"

    assert scanner("mistral", TOOLS).opens(text, 0, False) is True


def test_a_scanner_is_busy_inside_a_call() -> None:
    scan = scanner("qwen3_xml", TOOLS)

    assert not scan.busy
    scan.feed("<tool_call><function=read><parameter=path>")
    assert scan.busy
    scan.feed("a</parameter></function></tool_call>")
    assert not scan.busy
