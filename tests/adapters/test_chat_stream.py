import json
import logging
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.chat import DONE, ENVELOPE, adapters, data_of, event, fed, request, seen, stream

from proxy.adapters.base import Counts
from proxy.adapters.chat_choice import MAX_PENDING
from proxy.adapters.chat_deltas import Emitter
from proxy.adapters.chat_stream import MAX_CHOICES, ChatStream
from proxy.adapters.events import CallArguments, CallEnd, CallStart, Text
from proxy.errors import UpstreamFailed
from proxy.wire.sse import MAX_EVENT_BYTES

WRITE = (
    "<tool_call>\n<function=write>\n<parameter=path>\na.txt\n</parameter>\n"
    '<parameter=content>\nif a < b:\n  &amp; "c"\n</parameter>\n<parameter=times>\n3\n</parameter>\n'
    "</function>\n</tool_call>"
)
WRITTEN = ("write", {"path": "a.txt", "content": 'if a < b:\n  &amp; "c"', "times": 3})
READ = "<tool_call>\n<function=read>\n<parameter=path>\nb\n</parameter>\n</function>\n</tool_call>"
HALF = "<tool_call>\n<function=write>\n<parameter=path>\na.txt\n</parameter>\n<parameter=content>\nif a"


def translator(body=None, **options):
    return adapters(**options).plan(body or request()).answer_stream()


def pieces(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


# the contract


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_call_becomes_a_name_then_arguments_then_one_finish(size):
    written = fed(translator(), stream(*pieces("Now. " + WRITE, size)))

    found = seen(written)
    assert (found.content.strip(), found.called, found.finish) == ("Now.", [WRITTEN], "tool_calls")
    assert written.endswith(DONE)


def test_deltas_have_the_shape_that_clients_group_by():
    written = fed(translator(), stream(WRITE))

    first, second, *_ = [
        call
        for chunk in data_of(written)[1:-1]
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert first == {
        "index": 0,
        "id": first["id"],
        "type": "function",
        "function": {"name": "write", "arguments": ""},
    }
    assert len(first["id"]) == len("call_") + 24
    assert second == {"index": 0, "function": {"arguments": json.dumps(WRITTEN[1])}}


def test_several_calls_of_one_upstream_chunk_all_arrive():
    found = seen(fed(translator(), stream(f"{READ}\n{WRITE}\n{READ}")))

    assert found.called == [("read", {"path": "b"}), WRITTEN, ("read", {"path": "b"})]
    assert found.content == ""


def test_text_around_calls_stays():
    found = seen(fed(translator(), stream(f"One {READ} two")))

    assert (found.content, len(found.calls)) == ("One  two", 1)


def test_arguments_stream_while_they_are_written():
    stream_translator = translator()
    for each in stream(HALF)[:-2]:
        stream_translator.feed(each)

    assert b" more" in stream_translator.feed(event({"content": " more"}))


@pytest.mark.parametrize(
    ("text", "upstream", "downstream"),
    [
        (WRITE, "stop", "tool_calls"),
        (WRITE, "eos_token", "tool_calls"),
        (WRITE, "length", "length"),
        (WRITE, "content_filter", "content_filter"),
        (WRITE, "tool_calls", "tool_calls"),
        (HALF, "length", "length"),
        (HALF, "stop", "tool_calls"),
        ("text", "stop", "stop"),
        ("text", "eos_token", "stop"),
        ("text", "stop_sequence", "stop"),
        ("text", "length", "length"),
        ("text", "strange", "strange"),
        ("text", ["stop"], ["stop"]),
        (HALF, {"a": 1}, {"a": 1}),
    ],
)
def test_how_it_ends(text, upstream, downstream):
    assert seen(fed(translator(), stream(*pieces(text, 5), finish=upstream))).finish == downstream


def test_a_named_tool_ends_with_stop():
    body = request(tool_choice={"type": "function", "function": {"name": "write"}})

    found = seen(fed(translator(body), stream(WRITE)))

    assert (found.called, found.finish) == ([WRITTEN], "stop")


def test_a_truncated_call_is_left_as_it_was_streamed():
    found = seen(fed(translator(), stream(*pieces(HALF, 4), finish="length")))

    assert found.finish == "length"
    assert found.calls[0][1].startswith('{"path": "a.txt", "content": "if')
    with pytest.raises(json.JSONDecodeError):
        json.loads(found.calls[0][1])


def test_only_the_first_call_passes_where_one_was_asked_for():
    plan = adapters().plan(request(parallel_tool_calls=False))

    found = seen(fed(plan.answer_stream(), stream(READ + WRITE)))

    assert found.called == [("read", {"path": "b"})]
    assert plan.counts == Counts(calls=1, dropped=1)


def test_a_finish_reason_comes_once():
    events = [*stream("text")[:-1], event({}, "stop"), event({"content": ""}, "length"), DONE]

    found = seen(fed(translator(), events))

    assert found.finish == "stop"


def test_text_and_finish_may_share_a_chunk():
    events = [event({"role": "assistant", "content": WRITE}, "stop"), DONE]

    found = seen(fed(translator(), events))

    assert (found.called, found.finish) == ([WRITTEN], "tool_calls")


def test_every_choice_has_its_own_parser():
    first, second = pieces(WRITE, 9), pieces("x" + READ, 9)
    events = [event({"role": "assistant"}, index=index) for index in (0, 1)]
    for number in range(max(len(first), len(second))):
        for index, texts in enumerate((first, second)):
            events += [event({"content": text}, index=index) for text in texts[number : number + 1]]
    events += [event({}, "stop", index=1), event({}, "stop", index=0), DONE]

    written = fed(translator(), events)

    assert seen(written, 0).called == [WRITTEN]
    assert (seen(written, 1).content, seen(written, 1).called) == ("x", [("read", {"path": "b"})])
    assert seen(written, 0).finish == seen(written, 1).finish == "tool_calls"
    assert seen(written, 0).calls[0][2] != seen(written, 1).calls[0][2]


def test_choices_that_share_a_chunk_are_told_apart():
    both = [
        {"index": i, "delta": {"content": t}, "finish_reason": None} for i, t in enumerate(("a", "b<tool_"))
    ]
    chunk = b"data: %b\n\n" % orjson.dumps({**ENVELOPE, "choices": both, "usage": {"total_tokens": 3}})
    opened = [event({"role": "assistant"}, index=index) for index in (0, 1)]

    written = fed(translator(), [*opened, chunk, DONE])

    assert (seen(written, 0).content, seen(written, 1).content) == ("a", "b<tool_")
    assert written.count(b"total_tokens") == 1


def test_a_character_that_is_cut_in_two_arrives_whole():
    halves = [event({"content": "X"}).replace(b"X", half) for half in (rb"a\ud83d", rb"\ude80b")]

    written = fed(translator(), [event({"role": "assistant"}), *halves, event({}, "stop"), DONE])

    assert seen(written).content == "a🚀b"


def test_half_a_character_in_a_field_that_is_renamed_passes():
    plan = adapters(None, reasoning={}).plan(request(tools=None))
    half = event({"reasoning": "X"}).replace(b"X", rb"\ud83d")

    assert rb'"reasoning_content":"\ud83d"' in plan.answer_stream().feed(half)


# what is not ours


ODD = [
    b": ping\n\n",
    b"retry: 10\n\n",
    b":\n",
    event({"role": "assistant", "content": None, "refusal": None, "tool_calls": []}),
    b'data:{ "choices" : [ {"index":0, "delta":{"content":"\\u00e9 \\/"}} ], "x":1.0 }\r\n\r\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\xe2\x80\xa8a < b"}}]}\n\n',
    event({"content": "a"}, choice={"stop_reason": None, "token_ids": [5]}, usage={"total_tokens": 1}),
    b"data: not json\n\n",
    b"data: [1]\n\n",
    b'data: {"choices":null}\n\n',
    b'data: {"choices":[null]}\n\n',
    b'data: {"choices":[{"index":0}]}\n\n',
    b'event: x\nid: 1\ndata: {"other":1}\n\n',
    event({"content": "the end"}, "length"),
    b'data: {"id":"chatcmpl-1","choices":[],"usage":{"total_tokens":7}}\n\n',
    DONE,
    b": bye\n\n",
]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_in_which_nothing_changes_keeps_its_bytes(size):
    data = b"".join(ODD)

    assert fed(translator(), pieces(data, size)) == data


def test_events_leave_with_the_bytes_that_end_them():
    stream_translator = translator()

    for each in ODD:
        assert stream_translator.feed(each) == each
        assert not stream_translator.silent


def test_plain_text_never_lags():
    stream_translator = translator()
    text = "Hello world, how are you today my friend?"
    assert len(text) == 41

    for character in text:
        one = event({"content": character})
        assert stream_translator.feed(one) == one


def test_only_what_may_become_a_mark_waits():
    stream_translator = translator()
    stream_translator.feed(event({"role": "assistant", "content": ""}))

    assert seen_text(stream_translator.feed(event({"content": "a <tool"}))) == "a "
    assert stream_translator.feed(event({"content": "_ca"})) == b""
    assert stream_translator.silent
    assert seen_text(stream_translator.feed(event({"content": "ble>"}))) == "<tool_cable>"
    assert not stream_translator.silent


def seen_text(written):
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in data_of(written))


def test_the_role_does_not_wait_for_text():
    stream_translator = translator()

    (chunk,) = data_of(stream_translator.feed(event({"role": "assistant", "content": "<tool_call>"})))

    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_a_role_in_every_chunk_passes_once():
    events = [event({"role": "assistant", "content": piece}) for piece in pieces(WRITE, 5)]

    found = seen(fed(translator(), [*events, event({"role": "assistant"}, "stop"), DONE]))

    assert found.called == [WRITTEN]


def test_a_role_is_added_where_the_upstream_has_none():
    found = seen(fed(translator(), [event({"content": WRITE}), event({}, "stop"), DONE]))

    assert (found.role, found.called) == ("assistant", [WRITTEN])


def test_a_rewritten_chunk_keeps_what_it_carried():
    held = event({"role": "assistant", "content": "<tool_"})
    chunk = event(
        {"content": "call>\n<function=read>\n<parameter=path>\nb", "annotations": ["x"]},
        choice={"stop_reason": 5, "matched": None},
        usage={"total_tokens": 5},
        system_fingerprint="f",
        timings={"t": 1},
        empty=None,
    )

    *_, first, last = data_of(fed(translator(), [held, chunk]))[:4]

    assert {**first, "choices": 0} == {**ENVELOPE, "system_fingerprint": "f", "empty": None, "choices": 0}
    assert last["usage"] == {"total_tokens": 5}
    assert last["timings"] == {"t": 1}
    assert last["choices"][0]["stop_reason"] == 5


def test_usage_stays_where_it_was_and_comes_once():
    usage = {"total_tokens": 9}
    on_finish = [*stream(WRITE)[:-2], event({}, "stop", usage=usage), DONE]
    behind = [
        *stream(WRITE)[:-1],
        b"data: %b\n\n" % orjson.dumps({**ENVELOPE, "choices": [], "usage": usage}),
        DONE,
    ]

    for events in (on_finish, behind):
        chunks = data_of(fed(translator(), events))[:-1]
        assert [("usage" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1]["usage"] == usage
    assert chunks[-1]["choices"] == []


def test_usage_of_a_chunk_whose_text_waits_is_not_swallowed():
    waiting = event({"content": "<tool_call>"}, usage={"total_tokens": 4})

    (chunk,) = data_of(translator().feed(waiting))

    assert chunk["usage"] == {"total_tokens": 4}
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


def test_fields_of_an_event_are_kept_when_it_is_rewritten():
    stream_translator = translator()
    stream_translator.feed(event({"role": "assistant"}))

    written = stream_translator.feed(b"event: chunk\nid: 8\n" + event({"content": "a<"}))

    assert written.startswith(b"event: chunk\nid: 8\ndata: {")
    assert b'"content":"a"' in written


def test_logprobs_go_from_choices_that_are_scanned():
    with_logprobs = {"logprobs": {"content": [{"token": "a"}]}}
    events = [
        event({"role": "assistant", "content": "a"}, choice=with_logprobs),
        event({}, choice=with_logprobs),
        event({}, "stop", choice=with_logprobs),
    ]

    assert b"token" not in fed(translator(), events)


# upstreams that do it themselves


def native(*, index=0, arguments=""):
    call = {
        "index": index,
        "id": "call_up",
        "type": "function",
        "function": {"name": "read", "arguments": arguments},
    }
    return event({"tool_calls": [call]})


def test_native_calls_switch_the_parser_off():
    events = [
        event({"role": "assistant", "content": "So:"}),
        native(),
        event({"content": READ}),
        event({}, "stop"),
        DONE,
    ]

    assert fed(translator(), events) == b"".join(events)


def test_text_that_waits_is_released_before_a_native_call():
    events = [event({"role": "assistant", "content": "So <tool"}), native(), event({}, "tool_calls"), DONE]

    written = fed(translator(), events)

    assert seen(written).content == "So <tool"
    assert written.index(b"<tool") < written.index(b"call_up")
    assert seen(written).finish == "tool_calls"


def test_native_reasoning_switches_the_splitter_off():
    plan = adapters(reasoning={"start_in_reasoning": True}).plan(request())
    events = [
        event({"role": "assistant", "content": ""}),
        event({"reasoning": "hm"}),
        event({"content": "Said. " + READ}),
        event({}, "stop"),
        DONE,
    ]

    found = seen(fed(plan.answer_stream(), events))

    assert (found.reasoning, found.content.strip()) == ("hm", "Said.")
    assert found.called == [("read", {"path": "b"})]


# reasoning


@pytest.mark.parametrize(
    ("emit", "fields", "content"),
    [
        ("reasoning_content", {"reasoning_content": "why"}, "So."),
        ("reasoning", {"reasoning": "why"}, "So."),
        ("both", {"reasoning_content": "why", "reasoning": "why"}, "So."),
        ("strip", {}, "So."),
        ("keep", {}, "<think>why</think>So."),
    ],
)
def test_thinking_goes_where_it_is_wanted(emit, fields, content):
    plan = adapters(reasoning={"emit": emit}).plan(request())

    chunks = data_of(fed(plan.answer_stream(), stream("<think>why", "</think>So.")))[:-1]

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    for name in ("reasoning_content", "reasoning"):
        assert "".join(delta.get(name, "") for delta in deltas) == fields.get(name, "")
    assert "".join(delta.get("content", "") for delta in deltas) == content


@pytest.mark.parametrize(
    "given", [("reasoning",), ("reasoning_content",), ("reasoning", "reasoning_content")]
)
@pytest.mark.parametrize(
    ("emit", "fields"),
    [
        ("reasoning_content", {"reasoning_content"}),
        ("reasoning", {"reasoning"}),
        ("both", {"reasoning", "reasoning_content"}),
        ("strip", set()),
    ],
)
def test_the_upstreams_own_field_is_renamed(given, emit, fields):
    plan = adapters(None, reasoning={"emit": emit}).plan(request(tools=None))
    events = [
        event({"role": "assistant", "content": None}),
        event(dict.fromkeys(given, "hm")),
        *stream("x")[1:],
    ]

    written = fed(plan.answer_stream(), events)

    deltas = [chunk["choices"][0]["delta"] for chunk in data_of(written)[:-1]]
    for name in ("reasoning", "reasoning_content"):
        assert [delta[name] for delta in deltas if name in delta] == (["hm"] if name in fields else [])


def test_renamed_thinking_and_text_of_one_chunk_both_arrive():
    plan = adapters(None, reasoning={}).plan(request(tools=None))
    events = [event({"role": "assistant", "reasoning": "hm", "content": "So"}), event({}, "stop"), DONE]

    found = seen(fed(plan.answer_stream(), events))

    assert (found.reasoning, found.content, found.finish) == ("hm", "So", "stop")


def test_a_call_in_the_thinking_is_none():
    text = f"<think>I could write <tool_call> or {READ.replace('read', 'unknown')}</think>Done."

    for options in ({}, {"reasoning": {}}, {"reasoning": {"emit": "keep"}}):
        found = seen(fed(translator(**options), stream(*pieces(text, 6))))
        assert found.calls == []
        assert found.content.endswith("Done.")


def test_without_a_reasoning_adapter_thinking_stays_text():
    for text in ("<think>a</think>b", "</think>b", "<thinker>", " <thi", "<think>", "x<think>a</think>"):
        written = fed(translator(), stream(*text))
        assert seen(written).content == text


def test_an_answer_of_nothing_has_the_tag_that_the_prompt_held():
    options = {"reasoning": {"format": "minimax_m2_append"}}
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "read", "arguments": ""}}]

    nothing = seen(fed(translator(**options), stream()))
    native = seen(fed(translator(**options), [event({"role": "assistant", "tool_calls": calls})]))

    assert (nothing.content, nothing.finish) == ("<think>", "stop")
    assert native.content == ""


def test_a_call_behind_text_that_begins_like_thinking_is_found():
    assert seen(fed(translator(), stream("<th", READ))).called == [("read", {"path": "b"})]


def test_thinking_that_comes_between_text_is_renamed_too():
    plan = adapters(reasoning={}).plan(request())
    events = [
        event({"role": "assistant", "content": "a "}),
        event({"reasoning": "hm"}),
        *stream("b " + READ)[1:],
    ]

    found = seen(fed(plan.answer_stream(), events))

    assert (found.reasoning, found.content.strip(), len(found.calls)) == ("hm", "a b", 1)


def test_logprobs_stay_where_the_upstream_does_the_work():
    plan = adapters(reasoning={}).plan(request())
    with_logprobs = event({"reasoning": "hm", "content": "x"}, choice={"logprobs": {"content": ["t"]}})

    written = fed(plan.answer_stream(), [event({"role": "assistant"}), native(), with_logprobs])

    chunks = data_of(written)
    assert [chunk["choices"][0]["delta"] for chunk in chunks[-2:]] == [
        {"reasoning_content": "hm"},
        {"content": "x"},
    ]
    assert chunks[-1]["choices"][0]["logprobs"] == {"content": ["t"]}


# ends


def test_what_waits_is_released_before_done():
    written = fed(translator(), [event({"role": "assistant", "content": "a <tool"}), DONE])

    assert seen(written).content == "a <tool"
    assert written.endswith(DONE)


@pytest.mark.parametrize("cut", [True, False])
def test_what_waits_is_released_when_the_stream_ends(cut):
    written = fed(
        translator(), [event({"role": "assistant", "content": "a <tool"}), b'data: {"half'], cut=cut
    )

    assert (b'data: {"half\n\n' in written) is not cut
    found = seen(written.replace(b'data: {"half\n\n', b""))
    assert (found.content, found.finish) == ("a <tool", None)


def test_a_last_event_without_a_blank_line_counts():
    events = stream(WRITE)
    events[-2:] = [event({}, "stop").rstrip(b"\n")]

    assert seen(fed(translator(), events) + b"\n\n").finish == "tool_calls"


def test_an_error_event_comes_behind_what_was_held():
    error = b'data: {"error":{"message":"m","type":"server_error"}}\n\n'

    written = fed(translator(), [event({"role": "assistant", "content": "a <tool"}), error, DONE])

    assert seen(written).content == "a <tool"
    assert written.endswith(error + DONE)


def test_an_error_that_is_null_is_none():
    events = stream(WRITE, error=None)

    assert seen(fed(translator(), events)).called == [WRITTEN]


def test_an_event_without_end_is_the_upstreams_fault():
    with pytest.raises(UpstreamFailed, match="stream"):
        translator().feed(b"data: " + b"x" * MAX_EVENT_BYTES)


def test_more_choices_than_anyone_asks_for_pass():
    stream_translator = translator()
    events = [event({"content": "a<"}, index=index) for index in range(MAX_CHOICES + 1)]

    written = [stream_translator.feed(each) for each in events]

    assert written[-1] == events[-1]
    assert all(new != old for new, old in zip(written[:-1], events[:-1], strict=True))


# failures


class Breaking:
    """A scanner that holds every text back and breaks at a word."""

    def __init__(self, *, at_end=False):
        self.at_end = at_end

    def feed(self, text):
        if "break" in text:
            raise RuntimeError(f"a secret: {text}")
        if text.startswith("call"):
            return [CallStart(0, "id", "read"), CallArguments(0, "{}"), CallEnd(0)]
        return [Text(text[:-4])] if text.endswith("held") else []

    def finish(self, truncated=False):
        if self.at_end:
            raise ValueError
        return []


class Breakable:
    def __init__(self, **options):
        self.options = options

    def new(self, *, split):
        return Breaking(**self.options)

    @property
    def counts(self):
        return Counts(calls=1)


def breaking(**options):
    return ChatStream(Breakable(**options), Emitter("keep"), format="qwen3_xml")


def test_a_scanner_that_fails_gives_its_text_back_and_the_rest_passes(caplog):
    stream_translator = breaking()
    rest = [event({"content": WRITE}), event({}, "stop"), DONE]
    events = [event({"role": "assistant"}), event({"content": "a held"}), event({"content": " b"})]
    breaks = event({"content": "break"}, usage={"total_tokens": 3})

    with caplog.at_level(logging.ERROR):
        written = fed(stream_translator, [*events, breaks, *rest])

    assert seen(written).content == "a held b" + "break" + WRITE
    assert written.endswith(breaks + b"".join(rest))
    assert stream_translator.counts == Counts(calls=1, failures=1)
    (record,) = caplog.records
    assert (record.message, record.format) == ("an adapter failed", "qwen3_xml")
    assert record.error.startswith("RuntimeError in feed, line ")
    assert "secret" not in caplog.text + str(record.__dict__)


def test_what_is_remembered_for_a_failure_is_bounded():
    stream_translator = breaking()
    stream_translator.feed(event({"role": "assistant"}))
    for _ in range(3):
        stream_translator.feed(event({"content": "x" * (MAX_PENDING // 2)}))

    written = stream_translator.feed(event({"content": "break"}))

    assert len(written) < MAX_PENDING + 1000


def test_calls_that_came_before_a_failure_still_end_the_turn():
    events = [
        event({"role": "assistant", "content": "call"}),
        event({"content": "break"}),
        event({}, "stop"),
        DONE,
    ]

    found = seen(fed(breaking(), events))

    assert (found.called, found.content, found.finish) == ([("read", {})], "break", "tool_calls")


def test_a_scanner_that_fails_at_the_end_gives_its_text_back():
    stream_translator = breaking(at_end=True)

    written = fed(stream_translator, [event({"role": "assistant", "content": "a"}), DONE])

    assert seen(written).content == "a"
    assert stream_translator.counts.failures == 1


def test_a_translator_that_fails_again_lets_everything_pass():
    strange = event({"content": "x"}, {"not": "hashable"})
    events = [event({"content": "x"}), strange, event({"content": "<tool_"}), DONE]

    written = fed(translator(), events)

    assert written.endswith(b"".join(events[1:]))


# any cut


@given(
    st.lists(st.sampled_from(["Text ", WRITE, READ, "<tool_call>", "<", "\n", "é𝄞", HALF]), max_size=4),
    st.lists(st.integers(0, 400), max_size=5),
    st.sampled_from(["stop", "length"]),
)
def test_any_cut_of_text_and_bytes_gives_the_same(parts, cuts, finish):
    text = "".join(parts)
    expected = seen(fed(translator(), stream(text, finish=finish)))

    texts = pieces(text, 3)
    data = b"".join(stream(*texts, finish=finish))
    places = sorted({0, *(cut * len(data) // 400 for cut in cuts), len(data)})
    found = seen(fed(translator(), [data[a:b] for a, b in pairwise(places)]))

    assert (found.content, found.finish) == (expected.content, expected.finish)
    assert [call[:2] for call in found.calls] == [call[:2] for call in expected.calls]
