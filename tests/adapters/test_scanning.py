import pytest
from kit.scans import TOOLS, Answer, call, run, scanner

from proxy.adapters.events import Reasoning, Text
from proxy.adapters.reasoning import KINDS, ReasoningSplitter
from proxy.adapters.scanning import AnswerScanner

CALL = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'


def splitter(inside: bool = True) -> ReasoningSplitter:
    return ReasoningSplitter(KINDS["think"], start_in_reasoning=inside)


def test_without_parts_text_passes() -> None:
    scan = AnswerScanner(None, None)

    assert scan.feed(f"<think>{CALL}") == [Text(f"<think>{CALL}")]
    assert scan.feed("") == []
    assert scan.finish() == []


def test_the_thinking_is_split_off_first() -> None:
    scan = AnswerScanner(splitter(), None)

    assert scan.feed(f"a</think>{CALL}") == [Reasoning("a"), Text(CALL)]


def test_calls_are_found_in_the_answer() -> None:
    scan = AnswerScanner(splitter(), scanner("hermes", TOOLS))

    assert run(scan, [f"a</think>b{CALL}c"]) == Answer("bc", "a", [call("now")])


@pytest.mark.parametrize("parts", [(None, None), (splitter(False), None), (None, scanner("hermes", TOOLS))])
def test_halves_of_a_character_are_put_together(parts: tuple[ReasoningSplitter | None, None]) -> None:
    scan = AnswerScanner(*parts)

    assert run(scan, ["a \ud83d", "\ude00 é", "日"]) == Answer("a 😀 é日")


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        (["a\ud83d"], "a\ufffd"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00b"], "\ufffdb"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_a_half_that_stays_alone_is_replaced(pieces: list[str], content: str) -> None:
    assert run(AnswerScanner(None, None), pieces) == Answer(content)


def test_what_both_parts_hold_comes_at_the_end() -> None:
    scan = AnswerScanner(splitter(), scanner("hermes", TOOLS))
    scan.feed("a</think>b<tool_")

    assert scan.finish() == [Text("<tool_")]
