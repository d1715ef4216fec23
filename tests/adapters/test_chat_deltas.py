import pytest

from proxy.adapters.chat_deltas import Emitter, complete_calls, merged
from proxy.adapters.events import CallArguments, CallEnd, CallStart, Reasoning, Text

START, PIECE, END = CallStart(0, "id", "f"), CallArguments(0, "{"), CallEnd(0)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Text("a"), Text("b")], [Text("ab")]),
        ([Reasoning("a"), Reasoning("b"), Text("c")], [Reasoning("ab"), Text("c")]),
        ([START, PIECE, CallArguments(0, "}"), END], [START, CallArguments(0, "{}"), END]),
        ([Text("a"), START, Text("b")], [Text("a"), START, Text("b")]),
        ([], []),
    ],
)
def test_neighbours_of_a_kind_become_one(events, expected):
    assert merged(events) == expected


def test_thinking_that_is_kept_is_text():
    events = [Reasoning("<think>a</think>"), Text("b"), START]

    assert Emitter("keep").kept(events) == [Text("<think>a</think>b"), START]
    assert Emitter("both").kept(events) == events


def test_a_call_without_an_end_is_not_complete():
    second = [CallStart(1, "other", "g"), CallArguments(1, "{")]

    calls = complete_calls([START, PIECE, CallArguments(0, "}"), END, *second])

    assert calls == [{"id": "id", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
