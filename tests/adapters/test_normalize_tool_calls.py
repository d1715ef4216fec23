# ruff: noqa: E501 (tables read better on one line)
"""Native tool calls arrive in the one shape that every client understands."""

import json
from itertools import combinations_with_replacement, count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.chat import DONE, data_of, event, tool

from proxy.adapters.edited_stream import EditedStream
from proxy.adapters.native_arguments import MAX_JUDGED_CHARS
from proxy.adapters.native_calls import MAX_CALLS, MAX_WAITING_CHARS
from proxy.adapters.normalize_tool_calls import ToolCallRepair
from proxy.wire.sse import SseDecoder

TOOLS = [tool("write"), tool("read"), tool("read_all"), tool("go")]
ROLE = event({"role": "assistant", "content": None})
PATH = '{"path":"a"}'


def repair(**fields):
    numbers = count(1)
    return ToolCallRepair({"tools": TOOLS, **fields}, lambda size: next(numbers).to_bytes(size, "big"))


def calls(*items, finish=None, **choice):
    return event({"tool_calls": list(items)}, finish, **choice)


def item(index=None, id=None, name=None, arguments=None, **fields):
    """One entry; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    function = {key: value for key, value in function.items() if value is not None}
    entry = {"index": index, "id": id, "type": "function" if name else None, "function": function}
    return {key: value for key, value in entry.items() if value is not None} | fields


def edited(subject, *events, cuts=()):
    stream = EditedStream([subject.edit])
    data = b"".join(events)
    places = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


class Client:
    """Reads as strictly as any client in use; `calls` are [id, name, arguments]."""

    def __init__(self, written, index=0):
        self.calls, self.finish, self.content = [], None, ""
        for chunk in data_of(written):
            for choice in chunk["choices"] if chunk != b"[DONE]" else ():
                if choice["index"] == index:
                    self._take(choice)

    def _take(self, choice):
        self.content += choice["delta"].get("content") or ""
        for entry in choice["delta"].get("tool_calls", ()):
            assert type(entry["index"]) is int
            function = entry["function"]
            assert isinstance(function["arguments"], str)
            if entry["index"] == len(self.calls):
                assert isinstance(entry["id"], str)
                assert entry["id"]
                assert entry["type"] == "function"
                assert function["name"]
                self.calls.append([entry["id"], function["name"], function["arguments"]])
            else:
                assert not entry.get("id")
                assert not function.get("name")
                self.calls[entry["index"]][2] += function["arguments"]
        if choice["finish_reason"]:
            assert self.finish is None
            self.finish = choice["finish_reason"]
            ids = [id for id, _, _ in self.calls]
            assert len(set(ids)) == len(ids)

    @property
    def called(self):
        return [(name, json.loads(arguments)) for _, name, arguments in self.calls]


RIGHT = [
    ROLE,
    calls(item(0, "call_1", "write", "")),
    calls(item(0, arguments='{"path":')),
    calls(item(0, arguments='"a"}')),
    calls(item(1, "call_2", "read", ""), item(1, arguments="{}")),
    event({}, "tool_calls"),
    event({}, choice={}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
    DONE,
]


def test_calls_that_are_right_keep_their_bytes():
    subject = repair()

    assert edited(subject, *RIGHT) == b"".join(RIGHT)
    assert (subject.malformed, subject.invalid) == (0, 0)


@pytest.mark.parametrize(
    "events",
    [
        [ROLE, event({"content": 'Say "tool_calls".'}), event({}, "stop"), DONE],
        [event({"content": "Hi", "tool_calls": None}), event({"tool_calls": []}), event({}, "stop")],
        [b": keep-alive\n\n", b"data: not JSON\n\n", b'data: {"tool_calls": 1}\n\n', b"data: 7\n\n"],
        [b'data: {"choices": [7, {"delta": {"tool_calls": [8]}}]}\n\n'],
        [b'data: {"choices": [{"delta": {"tool_calls": 9}}]}\n\n'],
        [b'data: {"choices": [{"delta": null, "x": {"tool_calls": [{}]}}]}\n\n'],
    ],
)
def test_everything_else_keeps_its_bytes(events):
    assert edited(repair(), *events) == b"".join(events)


# (what is wrong, the events between the role and the end, calls that counted as malformed)
WRONG = [
    ("index absent", [calls(item(None, "a", "write", "")), calls(item(arguments=PATH))], 1),
    ("index from 1", [calls(item(1, "a", "write", "")), calls(item(1, arguments=PATH))], 1),
    ("index null", [calls({**item(0, "a", "write", PATH), "index": None})], 1),
    ("index as text", [calls({**item(0, "a", "write", PATH), "index": "0"})], 1),
    ("id absent", [calls(item(0, None, "write", "")), calls(item(0, arguments=PATH))], 1),
    ("id empty", [calls(item(0, "", "write", PATH))], 1),
    ("id as number", [calls(item(0, 7, "write", PATH))], 1),
    ("id late", [calls(item(0, None, "write", "")), calls(item(0, "a", arguments=PATH))], 1),
    ("id in every delta", [calls(item(0, "a", "write", "")), calls(item(0, "a", arguments=PATH))], 1),
    (
        "id and name in every delta",
        [calls(item(0, "a", "write", piece)) for piece in ("", '{"pa', 'th":"', 'a"}')],
        1,
    ),
    ("a new id in every delta", [calls(item(0, id, "write", piece)) for id, piece in zip("abc", ("", '{"path"', ':"a"}'), strict=True)], 1),
    ("type absent", [calls({"index": 0, "id": "a", "function": {"name": "write", "arguments": PATH}})], 1),
    ("arguments absent at first", [calls(item(0, "a", "write")), calls(item(0, arguments=PATH))], 1),
    (
        "arguments null at first",
        [calls({**item(0, "a"), "type": "function", "function": {"name": "write", "arguments": None}}), calls(item(0, arguments=PATH))],
        1,
    ),
    ("arguments null at last", [calls(item(0, "a", "write", PATH)), calls({"index": 0, "function": {"arguments": None}})], 1),
    ("arguments as object", [calls(item(0, "a", "write", {"path": "a"}))], 1),
    ("name late", [calls(item(0, "a")), calls(item(0, name="write", arguments="")), calls(item(0, arguments=PATH))], 1),
    ("name behind the arguments", [calls(item(0, "a", arguments='{"path"')), calls(item(0, name="write", arguments=':"a"}'))], 1),
    ("name in pieces", [calls(item(0, "a", "wri", "")), calls(item(0, name="te")), calls(item(0, arguments=PATH))], 1),
    ("name growing", [calls(item(0, "a", "wri", "")), calls(item(0, "a", "write", "")), calls(item(0, arguments=PATH))], 1),
    ("last brace missing", [calls(item(0, "a", "write", '{"path":"a"'))], 1),
    ("end of a text missing", [calls(item(0, "a", "write", '{"path":"a'))], 1),
    ("text behind the end", [calls(item(0, "a", "write", PATH)), calls(item(0, arguments="}}\n"))], 1),
    ("everything at the end", [calls(item(0, "a", "write", PATH), finish="stop")], 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "malformed"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_wrong_is_mended(events, malformed):
    subject = repair()
    end = [] if b'"finish_reason":"stop"' in events[-1] else [event({}, "stop")]

    client = Client(edited(subject, ROLE, *events, *end, DONE))

    assert client.called == [("write", {"path": "a"})]
    assert client.finish == "tool_calls"
    assert (subject.malformed, subject.invalid) == (malformed, 0)


@pytest.mark.parametrize("events", [case[1] for case in WRONG], ids=[case[0] for case in WRONG])
def test_the_same_however_the_stream_is_cut(events):
    stream = [*events, event({}, "stop")]
    whole = edited(repair(), *stream)
    size = len(b"".join(stream))

    for first, second in combinations_with_replacement(range(0, size + 1, 17), 2):
        assert edited(repair(), *stream, cuts=(first, second)) == whole


MANY = [
    ("every index 0", [calls(item(0, "a", "write", PATH)), calls(item(0, "b", "read", "")), calls(item(0, arguments="{}"))]),
    ("every index 0, without ids", [calls(item(0, None, "write", PATH)), calls(item(0, None, "read", "{}"))]),
    ("no index, whole calls", [calls(item(None, "a", "write", PATH), item(None, "b", "read", "{}"))]),
    ("no index, in pieces", [calls(item(None, "a", "write", "")), calls(item(arguments=PATH)), calls(item(None, "b", "read", "")), calls(item(arguments="{}"))]),
    ("no index, but ids", [calls(item(None, "a", "write", ""), item(None, "b", "read", "")), calls(item(None, "b", arguments="{}")), calls(item(None, "a", arguments=PATH))]),
    ("indexes 1 and 2", [calls(item(1, "a", "write", PATH)), calls(item(2, "b", "read", "{}"))]),
    ("one id for both", [calls(item(0, "a", "write", PATH)), calls(item(1, "a", "read", "{}"))]),
    ("interleaved", [calls(item(0, "a", "write", '{"path"')), calls(item(1, "b", "read", "{")), calls(item(0, arguments=':"a"}'), item(1, arguments="}"))]),
    ("no arguments for the second", [calls(item(0, "a", "write", PATH)), calls(item(1, "b", "read", ""))]),
    ("null for the second", [calls(item(0, "a", "write", PATH)), calls(item(1, "b", "read", "null"))]),
    ("a new name before the first is whole", [calls(item(0, "a", "write", '{"path":"a"')), calls(item(0, "b", "read", "{}"))]),
]  # fmt: skip


@pytest.mark.parametrize("events", [case[1] for case in MANY], ids=[case[0] for case in MANY])
def test_several_calls_are_told_apart(events):
    subject = repair()

    client = Client(edited(subject, ROLE, *events, event({}, "stop"), DONE))

    assert client.called == [("write", {"path": "a"}), ("read", {})]
    assert client.finish == "tool_calls"
    assert subject.invalid == 0


def test_two_calls_of_one_tool_without_ids_are_two():
    events = [calls(item(0, None, "read", '{"n":1}')), calls(item(0, None, "read", '{"n":2}'))]

    client = Client(edited(repair(), *events, event({}, "stop")))

    assert client.called == [("read", {"n": 1}), ("read", {"n": 2})]


def test_a_name_that_is_repeated_behind_whole_arguments_begins_nothing():
    events = [calls(item(0, None, "read", "{}")), calls(item(0, None, "read", ""))]

    assert Client(edited(repair(), *events, event({}, "stop"))).called == [("read", {})]


def test_a_tools_name_that_another_begins_with_is_not_held_back():
    first = calls(item(0, "a", "read", ""))

    assert EditedStream([repair().edit]).feed(first) == first


def test_a_name_of_no_tool_passes_as_it_is():
    events = [calls(item(0, "a", "unknown", "")), calls(item(0, arguments="{}")), event({}, "tool_calls")]

    assert edited(repair(), *events) == b"".join(events)


def test_a_name_that_stays_unfinished_is_given_as_it_is():
    client = Client(edited(repair(), calls(item(0, "a", "wri", "")), event({}, "stop")))

    assert client.called == [("wri", {})]


def test_a_call_that_never_gets_a_name_is_none():
    subject = repair()

    client = Client(edited(subject, ROLE, calls(item(0, "a", arguments=PATH)), event({}, "stop")))

    assert (client.calls, client.finish, subject.malformed) == ([], "stop", 1)


def test_arguments_wait_for_a_name_only_so_long():
    long = json.dumps({"text": "x" * MAX_WAITING_CHARS})

    written = edited(repair(), calls(item(0, "a", arguments=long)))

    assert data_of(written)[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == long


def test_a_delta_that_says_nothing_any_more_is_not_sent():
    events = [calls(item(0, "a", "write", "")), calls(item(0, "a", "write", "")), calls(item(0, "a", "write", ""), choice={}, usage={"x": 1})]  # fmt: skip

    written = edited(repair(), *events)

    assert [chunk["choices"][0]["delta"] for chunk in data_of(written)[1:]] == [{}]
    assert data_of(written)[-1]["usage"] == {"x": 1}


def test_text_beside_a_call_is_kept():
    events = [event({"role": "assistant", "content": "On it.", "tool_calls": [item(0, "a")]}), calls(item(0, name="write", arguments=PATH))]  # fmt: skip

    client = Client(edited(repair(), *events, event({}, "stop")))

    assert (client.content, client.called) == ("On it.", [("write", {"path": "a"})])


def test_raw_line_breaks_in_a_text_are_escaped():
    client = Client(edited(repair(), calls(item(0, "a", "write", '{"text":"a\n\tb"}')), event({}, "stop")))

    assert client.called == [("write", {"text": "a\n\tb"})]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_stays_cut(reason):
    subject = repair()
    events = [calls(item(0, "a", "write", '{"path":"a')), calls(item(1, "b", "read", "")), event({}, reason)]

    assert edited(subject, *events) == b"".join(events)
    assert subject.invalid == 0


@pytest.mark.parametrize("reason", ["stop", "eos_token", "stop_sequence", "tool_calls"])
def test_an_answer_with_calls_ends_with_tool_calls(reason):
    assert (
        Client(edited(repair(), calls(item(0, "a", "write", PATH)), event({}, reason))).finish == "tool_calls"
    )


def test_where_the_request_named_the_tool_the_reason_stays_stop():
    subject = repair(tool_choice={"type": "function", "function": {"name": "write"}})
    events = [calls(item(0, "a", "write", PATH)), event({}, "stop")]

    assert edited(subject, *events) == b"".join(events)


def test_a_reason_that_comes_twice_closes_nothing_twice():
    written = edited(
        repair(), calls(item(0, "a", "read", "")), event({}, "tool_calls"), event({}, "tool_calls")
    )

    arguments = [entry["function"]["arguments"] for chunk in data_of(written) for entry in chunk["choices"][0]["delta"].get("tool_calls", ())]  # fmt: skip
    assert arguments == ["", "{}"]


def test_choices_are_repaired_apart_and_their_ids_differ():
    events = [
        calls(item(1, "a", "write", PATH), index=0),
        calls(item(1, "a", "read", ""), index=1),
        event({}, "stop", index=0),
        event({}, "stop", index=1),
    ]

    written = edited(repair(), *events)

    first, second = Client(written, 0), Client(written, 1)
    assert (first.called, second.called) == ([("write", {"path": "a"})], [("read", {})])
    assert first.calls[0][0] != second.calls[0][0]


@pytest.mark.parametrize(
    "arguments",
    ["{'path': 'a'}", "<x>", '{"path":}', '{"a":1,}', '{"a":[1}', "write it", '{"a" ', "[1]", "12"],
)
def test_what_is_no_json_and_cannot_be_mended_passes_and_is_counted(arguments):
    subject = repair()

    client = Client(edited(subject, calls(item(0, "a", "write", arguments)), event({}, "stop")))

    assert client.calls[0][2].startswith(arguments.rstrip())
    assert subject.invalid == 1


def test_arguments_too_long_to_be_kept_are_not_judged():
    subject = repair()
    text = "x" * MAX_JUDGED_CHARS
    events = [calls(item(0, "a", "write", '{"a":"')), calls(item(0, arguments=text)), calls(item(0, arguments='"}')), event({}, "tool_calls")]  # fmt: skip

    assert edited(subject, *events) == b"".join(events)
    assert subject.invalid == 0


def test_more_calls_than_any_request_allows_pass_as_they_come():
    events = [calls(item(index, f"c{index}", "read", "{}")) for index in range(MAX_CALLS)]
    surplus = calls(item(MAX_CALLS, None, "read", {"a": 1}))

    assert edited(repair(), *events, surplus) == b"".join([*events, surplus])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2) | values,
        "id": st.sampled_from(["", "a", "b"]) | values,
        "type": values,
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["", "wri", "write", "read"]) | values,
                "arguments": st.sampled_from(["", "{}", '{"a":', "1}"]) | values,
            },
        )
        | values,
    },
)


@given(st.lists(st.lists(entries, max_size=3), max_size=5), st.sampled_from(["stop", "length", None]))
def test_whatever_an_upstream_sends_nothing_fails(deltas, reason):
    subject = repair()
    events = [calls(*delta) for delta in deltas]

    for each in [*events, event({}, reason)]:
        subject.edit(decoded(each))


def decoded(raw):
    (found,) = SseDecoder().feed(raw)
    return found


arguments = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from(["write", "read", "go"]), arguments), min_size=1, max_size=4),
    st.data(),
)
def test_any_calls_in_any_pieces_arrive(wanted, data):
    style = data.draw(st.sampled_from(["zero", "none", "one", "right"]))
    events = []
    for number, (name, value) in enumerate(wanted):
        index = {"zero": 0, "none": None, "one": number + 1, "right": number}[style]
        text = json.dumps(value)
        cut = data.draw(st.integers(0, len(text)))
        events.append(calls(item(index, f"id{number}", name, text[:cut])))
        events.append(calls(item(index, arguments=text[cut:])))

    client = Client(edited(repair(), *events, event({}, "stop"), DONE))

    assert client.called == wanted


# whole answers


def whole(*made, finish="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": list(made), **message}, "finish_reason": finish}  # fmt: skip
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()


def function(name="write", arguments=PATH, id="a", **fields):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def test_a_whole_answer_that_is_right_keeps_its_bytes():
    subject = repair()
    body = whole(function(), function(id="b"), finish="tool_calls")

    assert subject.answer_json(body) is body
    assert subject.malformed == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": []}',
        b'"tool_calls"',
        b'{"tool_calls": 1, "choices": 2}',
        b'{"choices": [1, {"message": null}, {"message": {"tool_calls": null}}]}',
        whole(),
        whole("x"),
        whole({"id": "a", "type": "custom", "custom": {}}, finish="tool_calls"),
    ],
)
def test_whole_answers_without_calls_of_functions_keep_their_bytes(body):
    assert repair().answer_json(body) is body


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (function(arguments={"path": "a"}), {"path": "a"}),
        (function(arguments=""), {}),
        (function(arguments=None), {}),
        (function(arguments="null"), {}),
        (function(arguments=json.dumps(PATH)), {"path": "a"}),
        (function(arguments='{"path":"a"'), {"path": "a"}),
        (function(arguments='{"path":"a\n"}'), {"path": "a\n"}),
        (function(id=None), {"path": "a"}),
        (function(type=None), {"path": "a"}),
    ],
)
def test_a_call_of_a_whole_answer_is_mended(call, expected):
    subject = repair()

    choice = json.loads(subject.answer_json(whole(call)))["choices"][0]

    (made,) = choice["message"]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == expected
    assert (made["type"], bool(made["id"]), choice["finish_reason"]) == ("function", True, "tool_calls")
    assert (subject.malformed, subject.invalid) == (1, 0)


def test_ids_of_a_whole_answer_are_unique():
    choice = json.loads(repair().answer_json(whole(function(), function())))["choices"][0]

    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2


def test_only_the_reason_may_be_wrong():
    body = whole(function())

    assert repair().answer_json(body) == body.replace(b'"stop"', b'"tool_calls"').replace(b": ", b":").replace(b", ", b",")  # fmt: skip


@pytest.mark.parametrize("arguments", ["{'path'", '"text"', '"not JSON'])
def test_arguments_of_a_whole_answer_that_are_beyond_repair_are_counted(arguments):
    subject = repair()

    subject.answer_json(whole(function(arguments=arguments)))

    assert subject.invalid == 1


def test_a_whole_answer_that_was_cut_stays_cut():
    subject = repair()
    body = whole(function(arguments='{"path":"a'), finish="length")

    assert subject.answer_json(body) is body
    assert subject.invalid == 0
