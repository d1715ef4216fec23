# ruff: noqa: E501  # a vector reads best on one line

import pytest
from kit.scans import TOOLS, Answer, call, cuts, run, scanner

from proxy.adapters.events import Reasoning, Text
from proxy.adapters.reasoning import KINDS, ReasoningSplitter
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.tool_calls.formats import KINDS as FORMATS


def split(
    family: str, text: str, inside: bool | None = None, *, marks: bool = False, truncated: bool = False
) -> Answer:
    """What a family makes of a text, which must not depend on the cuts."""
    answers = [
        run(
            AnswerScanner(ReasoningSplitter(KINDS[family], start_in_reasoning=inside, marks=marks), None),
            pieces,
        )
        for pieces in cuts(text)
    ]
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def with_calls(format: str, text: str, inside: bool = True) -> Answer:
    def scans() -> AnswerScanner:
        family = KINDS[FORMATS[format].reasoning or "think"]
        return AnswerScanner(ReasoningSplitter(family, start_in_reasoning=inside), scanner(format, TOOLS))

    answers = [run(scans(), pieces) for pieces in cuts(text)]
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


ANSWERS = [
    ("<think>\nfirst\n\nthen\n</think>\n\nanswer\n", False, "first\n\nthen", "answer\n"),
    ("first</think>answer", True, "first", "answer"),
    ("<think>first</think>answer", True, "first", "answer"),
    (" <think> first </think>  answer", None, " first", "  answer"),
    ("answer", False, "", "answer"),
    ("\n answer", False, "", "\n answer"),
    ("  ", False, "", "  "),
    ("never closed", True, "never closed", ""),
    ("<think>never closed", False, "never closed", ""),
    ("<think></think>answer", False, "", "answer"),
    ("<think>\n\n</think>\n\nanswer", False, "", "answer"),
    ("\n\n", True, "", ""),
    ("</think>answer", False, "", "answer"),
    ("a <think> b </think> c", True, "a <think> b", " c"),
    ("<think>a</think>\n<think>b</think>\nc", False, "ab", "c"),
    ("the tag <think> in an answer", False, "", "the tag <think> in an answer"),
    ("a</think>the tag </think> in an answer", True, "a", "the tag </think> in an answer"),
    ("a < b </thin", True, "a < b </thin", ""),
    ("<thin", False, "", "<thin"),
    ("a\n\n\nb \n</think>", True, "a\n\n\nb", ""),
    ("\n\n  a\n b</think>", True, "  a\n b", ""),
]


@pytest.mark.parametrize(("text", "inside", "reasoning", "content"), ANSWERS)
def test_thinking_and_answer_are_told_apart(
    text: str, inside: bool | None, reasoning: str, content: str
) -> None:
    assert split("think", text, inside) == Answer(content, reasoning)


FAMILIES = [
    ("deepseek_r1", "a</think>b", None, "a", "b"),
    ("seed_oss", "a<seed:cot_budget_reflect>b</seed:cot_budget_reflect></seed:think>c", None, "a<seed:cot_budget_reflect>b</seed:cot_budget_reflect>", "c"),
    ("minimax_m3", "</mm:think>b", False, "", "b"),
    ("mistral", "[THINK]a[/THINK]b", False, "a", "b"),
    ("mistral", "x [THINK]a[/THINK]\nb [/THINK]c", False, "a", "x b c"),
    ("gemma4", "<|channel>thought\na<channel|>b", False, "a", "b"),
    ("gemma4", "<|channel>a<channel|>b", False, "a", "b"),
    ("gemma4", "<|channel>thou", False, "thou", ""),
    ("gemma4", "thought\na<channel|>b", True, "a", "b"),
    ("gemma4", "<|channel>thought\na<channel|>b", True, "a", "b"),
    ("gemma4", "thoughtful<channel|>b", True, "thoughtful", "b"),
    ("granite", "Here's my thought process: a. Here is my response: b", False, " a. ", " b"),
    ("granite", "Here is the answer", False, "", "Here is the answer"),
    ("granite", " Here was", True, " Here was", ""),
    ("granite_thinking", "<think>a</think>\n<response>b</response>\n", False, "a", "b"),
    ("hunyuan_a13b", "<think>\na\n</think>\n<answer>\nb </answer> c\n</answer>", False, "a", "b </answer> c"),
    ("hunyuan_a13b", "<answer>b</answer>", False, "", "b"),
    ("ernie45", "a\n</think>\n\n<response>\nb\n</response>\n", None, "a", "b"),
    ("olmo3", " a \n</think>b", None, " a \n", "b"),
    ("step3p5", "a\n\n</think>\n\nb", None, "a\n", "\nb"),
    ("step3p5", "\na\nb</think>b", None, "\na\nb", "b"),
    ("step3p5", "\n</think>b", None, "", "b"),
    ("olmo3", " \n</think>\nb", None, "", "\nb"),
    ("qwen3", "<think>a</think>b</think>c", None, "a", "bc"),
    ("qwen3", "<think>a</think>the `</think>` tag, or \"</think>\"", None, "a", "the `</think>` tag, or \"</think>\""),
    ("harmony", "<|channel|>analysis<|message|>a<|end|>b", False, "a", "b"),
    ("k2_horizon", "<ifm|think_fast>a</ifm|think_fast>b", False, "a", "b"),
    ("kimi_k3", "a<|close|>think<|sep|><|open|>response<|sep|>b<|close|>response<|sep|><|close|>message<|sep|>", True, "a", "b"),
    ("plamo3", "<|plamo:begin_think:plamo|> a <|plamo:end_think:plamo|> b", False, " a ", " b"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "text", "inside", "reasoning", "content"), FAMILIES)
def test_families_differ_in_their_tags(
    family: str, text: str, inside: bool | None, reasoning: str, content: str
) -> None:
    assert split(family, text, inside) == Answer(content, reasoning)


@pytest.mark.parametrize("family", ["minimax_m2_append"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "<think>"), ("a\n</think>b", "<think>a\n</think>"), ("<think>a</think>b", "<think>a</think>")],
)
def test_appended_thinking_keeps_its_tags(family: str, text: str, expected: str) -> None:
    assert split(family, text).reasoning == expected


def test_thinking_can_be_kept_with_its_tags() -> None:
    text = "\n<think>\n a \n</think>\n\nb"

    answer = split("think", text, False, marks=True)

    assert answer.reasoning == "<think>\n a \n</think>"
    assert answer.content == "\n\nb"


def test_a_title_is_kept_where_tags_are_kept() -> None:
    assert split("gemma4", "<|channel>thought\na<channel|>b", False, marks=True).reasoning == (
        "<|channel>thought\na<channel|>"
    )


def test_an_end_of_nothing_is_kept_where_tags_are_kept() -> None:
    assert split("think", "</think>b", False, marks=True) == Answer("</think>b")


def test_a_second_tag_is_kept_where_tags_are_kept() -> None:
    assert split("think", "<think>a</think>b", True, marks=True).reasoning == "<think>a</think>"


@pytest.mark.parametrize("family", ["think", "olmo3"])
@pytest.mark.parametrize(
    "where", ["{} a</think>", "a{}</think>", "a{}b</think>c", "a</think>{}b", "{}</think>"]
)
def test_so_much_white_space_is_said(family: str, where: str) -> None:
    text = where.format(" " * 1500)

    def scan() -> ReasoningSplitter:
        return ReasoningSplitter(KINDS[family], start_in_reasoning=True)

    whole = run(AnswerScanner(scan(), None), [text])

    assert run(AnswerScanner(scan(), None), list(text)) == whole
    assert run(AnswerScanner(scan(), None), [text[:700], text[700:1400], text[1400:]]) == whole


def test_thinking_is_said_as_it_comes() -> None:
    scan = ReasoningSplitter(KINDS["think"], start_in_reasoning=True)

    said = [scan.feed(character) for character in "I see."]

    assert said[0] == [Reasoning("I")] and said[1] == []
    assert said[2:] == [[Reasoning(" s")], [Reasoning("e")], [Reasoning("e")], [Reasoning(".")]]


def test_the_answer_passes_once_the_thinking_is_over() -> None:
    scan = ReasoningSplitter(KINDS["think"], start_in_reasoning=True)
    assert not scan.passing

    scan.feed("a</think>b")

    assert scan.passing
    assert scan.feed("<think>") == [Text("<think>")]
    assert scan.finish() == []


XML = "<tool_call><function=read><parameter=path>a</parameter></function></tool_call>"
READ = call("read", '{"path": "a"}')
CALLED = [
    # A call that names a tool ends the thinking, with or without its closing tag.
    ("qwen3_xml", f"so\n\n{XML}", Answer("", "so", [READ])),
    ("qwen3_xml", f"so</think>\n\n{XML}", Answer("", "so", [READ])),
    ("hermes", 'so <tool_call>{"name": "now", "arguments": {}}</tool_call>', Answer("", "so", [call("now")])),
    ("glm_xml", "so<tool_call>now</tool_call>", Answer("", "so", [call("now")])),
    ("kimi_k2", "so<|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{}<|tool_call_end|>", Answer("", "so", [call("rm")])),
    ("auto", f"so {XML}", Answer("", "so", [READ])),
    ("olmo3", "so<function_calls>now()</function_calls>", Answer("", "so", [call("now")])),
    # Anything else that looks like one is thinking.
    ("qwen3_xml", "a <tool_call> then <function=rm></function> b</think>c", Answer("c", "a <tool_call> then <function=rm></function> b")),
    ("glm_xml", "a <tool_call>rm</tool_call> b</think>c", Answer("c", "a <tool_call>rm</tool_call> b")),
    # Tags inside arguments are text of the arguments.
    ("qwen3_xml", f"a</think>{XML.replace('a</p', '<think></think></p')}", Answer("", "a", [call("read", '{"path": "<think></think>"}')])),
    ("mistral", '[TOOL_CALLS]read[ARGS]{"path": "[THINK] [/THINK]"}[THINK]b[/THINK]c', Answer("c", "b", [call("read", '{"path": "[THINK] [/THINK]"}')])),
]  # fmt: skip


@pytest.mark.parametrize(("format", "text", "expected"), CALLED)
def test_a_call_ends_the_thinking_only_if_it_is_one(format: str, text: str, expected: Answer) -> None:
    assert with_calls(format, text, inside=format != "mistral") == expected


@pytest.mark.parametrize(
    ("family", "text", "expected"),
    [
        ("glm45", "<think><tool_call>tool call", Answer("<tool_call>tool call")),
        ("kimi_k2", "<think>a<|tool_calls_section_begin|>", Answer("<|tool_calls_section_begin|>", "a")),
        ("deepseek_v3", "<think>a\n<｜DSML｜tool_calls>", Answer("<｜DSML｜tool_calls>", "a")),
    ],
)
def test_without_a_scanner_the_mark_alone_ends_the_thinking(family: str, text: str, expected: Answer) -> None:
    assert split(family, text, False) == expected


def test_every_family_can_begin_and_end() -> None:
    for name, family in KINDS.items():
        text = f"{family.open[0]}{family.title}a{family.close[0]}b"

        if not family.append:
            assert split(name, text, False) == Answer("b", "a")
