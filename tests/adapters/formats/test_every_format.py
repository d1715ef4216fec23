import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.scans import TOOLS, Answer, cuts, run, scanner

from proxy.adapters.events import Event, Text
from proxy.adapters.reasoning import KINDS as FAMILIES
from proxy.adapters.reasoning import ReasoningSplitter
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.tool_calls.format import Body, Format
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls
from proxy.adapters.tool_calls.scanner import prepare

TRIGGER = "<Function_Ab1c_Start/>"
WRITABLE = sorted(KINDS.keys() - {"auto"})

# What files hold and what looks like markup without being all of an end.
PIECES = [
    *("", " ", "\n", "\n\n", "\t", "\u2028", "text", "é", "日本", "🙂", "-", ",", ":", "007", "null", "true"),
    *(
        "<",
        "</",
        ">",
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "\\",
        "\\n",
        "&amp;",
        "]]>",
        "<think>",
        "</think>",
        "<b>x</b>",
    ),
]
CALLS = [
    *('write(path="x")', "now()", "```json\n", "```", '{"k": [1]}'),
    *('{"name": "now", "arguments": {"path": "', '{"name": "now", "arguments": {}}'),
]


def marks(format: Format) -> list[str]:
    """The format's own marks, to be put into values."""
    if format.body in (Body.TREE, Body.BRACES):
        return ["mark"]
    spellings = (*format.wrap, *format.wrap_end, *format.call_end, *format.argument_end, *format.drop)
    return [text.replace("{key}", "path") for text in spellings] or ["mark"]


def strings(format: Format) -> st.SearchStrategy[str]:
    plain = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map("".join)
    marked = st.tuples(plain, st.sampled_from(marks(format)), plain).map(
        lambda parts: f"{parts[0]}a{parts[1]}b{parts[2]}"
    )
    return (plain | marked).filter(lambda text: format.prefix not in text if format.prefix else True)


def arguments(format: Format) -> st.SearchStrategy[dict[str, Any]]:
    text = strings(format)
    leaves = (
        text | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
    )
    if format.body is Body.TREE:
        # In a tree everything below an argument is text, and what is empty has no type.
        leaves = text.filter(lambda value: bool(value.strip()))
    keys = st.sampled_from(["k", "key-2", "K_3"])
    return st.fixed_dictionaries(
        {},
        optional={
            "path": text,
            "content": text,
            "line": st.integers(),
            "tags": st.lists(leaves, max_size=3),
            "meta": st.dictionaries(keys, leaves, max_size=3),
            "force": st.booleans(),
        },
    )


def some_calls(format: Format) -> st.SearchStrategy[list[Call]]:
    call = st.builds(lambda given: Call("x", "write", given), arguments(format))
    return st.lists(call, min_size=1, max_size=3)


@pytest.mark.parametrize("name", WRITABLE)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_written_is_read_back(name: str, data: st.DataObject) -> None:
    format = KINDS[name]
    calls = data.draw(some_calls(format))
    before = data.draw(st.sampled_from(["", "I will write it.\n", "A < b. "]))
    text = before + render_calls(format, calls, trigger=TRIGGER)
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))

    answer = run(scanner(name, TOOLS, trigger=TRIGGER), [text[:first], text[first:second], text[second:]])

    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [
        (call.name, call.arguments) for call in calls
    ]
    assert all(call.complete for call in answer.calls)
    assert answer.content.strip() == before.strip()


def soup(format: Format) -> st.SearchStrategy[str]:
    """Marks, parts of them and ordinary text in no good order."""
    spellings = [
        *marks(format),
        *format.wrap,
        *format.call,
        *format.argument,
        TRIGGER + "\n" + "".join(format.wrap[:1]),
    ]
    filled = [
        text.format(name="write", key="path", n=0, id="a1", type="true", channel="final")
        for text in spellings
    ]
    family = FAMILIES[format.reasoning or "think"]
    pieces = st.sampled_from([*filled, *PIECES, *CALLS, *family.open, *family.close])
    cut = st.tuples(st.sampled_from(filled), st.integers(1, 12)).map(lambda pair: pair[0][: pair[1]])
    return st.lists(pieces | cut, max_size=12).map("".join)


def scan_of(name: str, thinking: bool | None) -> AnswerScanner:
    tools = scanner(name, TOOLS, trigger=TRIGGER)
    if thinking is None:
        return AnswerScanner(None, tools)
    family = FAMILIES[KINDS[name].reasoning or "think"]
    return AnswerScanner(ReasoningSplitter(family, start_in_reasoning=thinking), tools)


@pytest.mark.parametrize("name", sorted(KINDS))
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_cut_says_the_same_as_the_whole(name: str, data: st.DataObject) -> None:
    text = data.draw(soup(KINDS[name]))
    thinking = data.draw(st.sampled_from([None, True, False]))
    truncated = data.draw(st.booleans())
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))

    whole = run(scan_of(name, thinking), [text], truncated=truncated)

    assert run(scan_of(name, thinking), list(text), truncated=truncated) == whole
    pieces = [text[:first], text[first:second], text[second:]]
    assert run(scan_of(name, thinking), pieces, truncated=truncated) == whole


@pytest.mark.parametrize("name", sorted(KINDS))
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_complete_calls_have_arguments_that_are_json(name: str, data: st.DataObject) -> None:
    format = KINDS[name].also[0] if KINDS[name].body is Body.NONE else KINDS[name]
    text = render_calls(format, data.draw(some_calls(format)), trigger=TRIGGER)
    end = data.draw(st.integers(0, len(text)))
    truncated = data.draw(st.booleans())

    answer = run(scanner(name, TOOLS, trigger=TRIGGER), [text[:end]], truncated=truncated)

    for call in answer.calls:
        if call.complete and truncated:
            assert isinstance(json.loads(call.arguments), dict)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_plain_text_never_waits(name: str) -> None:
    text = "Hello you, all is well here: (very) grand"
    scan = scan_of(name, None)
    assert len(text) == 41

    assert [event for character in text for event in scan.feed(character)] == [Text(c) for c in text]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_tail_waits_only_while_it_may_begin_a_mark(name: str) -> None:
    scan = scan_of(name, None)
    said: list[Event] = scan.feed("so: ")

    for character in "a < b | c [ d ] e { f } g < h ":
        said = scan.feed(character)

    assert said and isinstance(said[-1], Text) and said[-1].text.endswith(" ")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_nothing_is_made_of_nothing(name: str) -> None:
    assert run(scan_of(name, False), []) == Answer()
    assert run(scan_of(name, None), ["", ""]) == Answer()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_markup_in_text_without_a_call_comes_back_unchanged(name: str) -> None:
    format = KINDS[name]
    spelled = [*format.wrap, *format.call]
    text = " and ".join(f"`{mark} …`" for mark in spelled).format(
        name="", key="", n="", id="", channel="", type=""
    )
    text = f"Prose about {text}."

    for pieces in cuts(text):
        assert run(scan_of(name, None), pieces) == Answer(text)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_format_names_a_reasoning_family_that_exists(name: str) -> None:
    reasoning = KINDS[name].reasoning

    assert reasoning is None or reasoning in FAMILIES


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_is_prepared_need_not_be_compiled_again(name: str) -> None:
    prepare(KINDS[name])
    prepare(KINDS[name])

    assert run(scanner(name), ["text"]) == Answer("text")
