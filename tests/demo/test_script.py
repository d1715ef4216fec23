"""Marks in a message become the steps and faults of an answer."""

import orjson
import pytest

from proxy.adapters.events import CallArguments, CallStart, Reasoning, Text
from proxy.demo.script import MAX_DELAY, MAX_PIECES, after_tool, count_tokens, script_for, truncated
from proxy.demo.texts import NASTY, UTF8

TOOLS = [
    {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}},
    {"name": "search", "parameters": {"properties": {"query": {"type": "string"}}}},
]


def text_of(script):
    return "".join(step.text for step in script.steps if isinstance(step, Text))


def test_a_message_without_marks_is_repeated_after_an_introduction():
    script = script_for("hello there")

    assert text_of(script).endswith("You said: hello there")
    assert len(script.steps) > 5


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("[[hello]]", "Hello from the demo engine."),
        ("[[empty]]", ""),
        ("please [[count 3]] now", " 000 001 002"),
        ("[[utf8]]", "".join(UTF8)),
        ("[[nasty]]", "".join(NASTY)),
        ("[[hello]][[count 1]]", "Hello from the demo engine. 000"),
    ],
)
def test_a_mark_names_the_text(message, text):
    assert text_of(script_for(message)) == text


@pytest.mark.parametrize(
    ("mark", "field", "value"),
    [
        ("[[wait 2s]]", "wait", 2.0),
        ("[[slow 50ms]]", "pause", 0.05),
        ("[[wait 1.5]]", "wait", 1.5),
        ("[[wait 9999999m]]", "wait", MAX_DELAY),
        ("[[status 503]]", "status", 503),
        ("[[status 200]]", "status", 500),
        ("[[cut 5]]", "cut_after", 5),
        ("[[stall 3]]", "stall_after", 3),
        ("[[error 0]]", "error_after", 0),
    ],
)
def test_a_mark_sets_a_fault_and_leaves_the_text_alone(mark, field, value):
    script = script_for(f"[[hello]] {mark}")

    assert getattr(script, field) == value
    assert text_of(script) == "Hello from the demo engine."


def test_thinking_comes_before_the_answer():
    steps = script_for("[[think]]").steps

    kinds = [type(step) for step in steps]
    assert kinds == sorted(kinds, key=[Reasoning, Text].index)
    assert set(kinds) == {Reasoning, Text}


def test_a_tool_is_called_with_arguments_that_fit_it():
    script = script_for("[[tool]]", TOOLS)

    start, *arguments = script.steps
    assert (start.name, start.index, script.finish) == ("get_weather", 0, "tool_calls")
    assert orjson.loads("".join(step.text for step in arguments)) == {"city": "example"}


def test_several_calls_go_through_the_tools_and_have_their_own_ids():
    script = script_for("[[tool 3]]", TOOLS)

    starts = [step for step in script.steps if isinstance(step, CallStart)]
    assert [start.name for start in starts] == ["get_weather", "search", "get_weather"]
    assert len({start.id for start in starts}) == 3


@pytest.mark.parametrize(("tools", "may_call"), [((), True), (TOOLS, False)])
def test_no_tool_is_called_when_none_may_be(tools, may_call):
    script = script_for("[[tool]]", tools, may_call=may_call)

    assert script.finish == "stop"
    assert not [step for step in script.steps if isinstance(step, CallStart | CallArguments)]


def test_a_required_call_is_made_unasked():
    assert script_for("hi", TOOLS, must_call=True).finish == "tool_calls"


@pytest.mark.parametrize(
    ("mark", "begin"),
    [
        ("xml", "<function_calls>"),
        ("hermes", "<tool_call>\n{"),
        ("qwen3_xml", "<tool_call>\n<function=get_weather>"),
    ],
)
def test_a_call_can_be_written_into_the_text(mark, begin):
    script = script_for(f"[[{mark}]]", TOOLS)

    assert text_of(script).startswith(begin)
    assert script.finish == "stop"


def test_a_limit_on_tokens_cuts_the_steps_and_says_length():
    script = truncated(script_for("[[count 100]]"), 7)

    assert (len(script.steps), script.finish) == (7, "length")


def test_a_mistyped_number_is_bounded():
    assert len(script_for("[[count 99999999999]]").steps) == MAX_PIECES


def test_marks_in_a_tool_result_do_nothing():
    assert text_of(after_tool("[[status 503]]")) == "The tool answered: [[status 503]]"


def test_tokens_are_words():
    assert count_tokens("one two  three\n") == 4
    assert count_tokens("") == 0
