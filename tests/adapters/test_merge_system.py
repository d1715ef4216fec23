import pytest

from proxy.adapters.merge_system import MergeSystemMessages, joined

USER = {"role": "user", "content": "u"}


def system(content, role="system"):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([system("a"), system("b"), USER], [system("a\n\nb"), USER]),
        ([system("a"), USER, system("b"), USER], [system("a\n\nb"), USER, USER]),
        ([USER, system("a")], [system("a"), USER]),
        ([system("a", "developer"), USER], [system("a"), USER]),
        ([system("a"), system("b", "developer"), system("c")], [system("a\n\nb\n\nc")]),
        ([system(""), system("b")], [system("b")]),
        ([system("a"), system(None)], [system("a")]),
        (
            [system([{"type": "text", "text": "a"}]), system("b")],
            [system([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
        ),
        ([{**system("a"), "name": "n"}, system("b")], [{**system("a\n\nb"), "name": "n"}]),
    ],
)
def test_system_messages_become_one_at_the_beginning(messages, expected):
    body = {"messages": messages, "model": "m"}

    assert MergeSystemMessages().rewrite(body) == {"messages": expected, "model": "m"}
    assert body["messages"] is messages


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER]},
        {"messages": [system("a"), USER]},
        {"messages": []},
        {"messages": "x"},
        {"messages": [None, "x"]},
        {"messages": [{"role": ["system"]}, {"role": {}}, {"role": 5}]},
        {},
    ],
)
def test_what_is_right_already_stays_the_same_object(body):
    assert MergeSystemMessages().rewrite(body) is body


def test_parts_stay_parts():
    part = {"type": "text", "text": "a", "cache_control": {}}

    assert joined("x", [part]) == [{"type": "text", "text": "x"}, part]
