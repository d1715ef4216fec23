"""Asking for usage, and hiding what the asking brought."""

from itertools import combinations_with_replacement, pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.usage.ask import MAX_EXTRA_BYTES, UsageHider, ask_for_usage, takes_stream_options
from proxy.usage.sse_meter import SseMeter
from proxy.usage.tokens import Usage


def asked(body: bytes) -> bytes | None:
    members = orjson.loads(body)
    return ask_for_usage(body, {name: value for name, value in members.items() if name == "stream_options"})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream": true }\r\n', b'{"stream": true ,"stream_options":{"include_usage":true}}\r\n'),
        (b"{}", b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":null,"a":1}', b'{"stream_options":{"include_usage":true},"a":1}'),
        (b'{"stream_options" : {} }', b'{"stream_options" : {"include_usage":true} }'),
        (
            b'{"stream_options":{"continuous_usage_stats":true},"a":[1]}',
            b'{"stream_options":{"continuous_usage_stats":true,"include_usage":true},"a":[1]}',
        ),
        (b'{"stream_options":{"include_usage":false}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"include_usage" : null, "x":1}}',
         b'{"stream_options":{"include_usage" : true, "x":1}}'),
        (b'{"stream_options":{"include_usage":true}}', None),
        (b'{"stream_options":{"include_usage":{}}}', None),
        (b'{"stream_options":{"include_usage":0}}', None),
        (b'{"stream_options":[]}', None),
        (b'{"stream_options":"x"}', None),
        (b'{"stream\\u005foptions":{}}', None),
        (b'{"stream_options":{"x":"' + b"y" * 5000 + b'"}}', None),
        (b'{"stream_options":{"include_usage":false,"x":{"include_usage":false}}}', None),
        (
            b'{"stream_options":{},"tools":[{"stream_options":null}],"m":"\\"stream_options\\":{"}',
            b'{"stream_options":{"include_usage":true},"tools":[{"stream_options":null}],"m":"\\"stream_options\\":{"}',
        ),
        ('{"stream_options":{"ü":"ü"},"m":"ü"}'.encode(),
         '{"stream_options":{"ü":"ü","include_usage":true},"m":"ü"}'.encode()),
    ],
)  # fmt: skip
def test_a_request_is_changed_by_as_few_bytes_as_can_be(body, expected):
    assert asked(body) == expected


def test_the_key_within_a_text_or_a_list_is_not_the_options():
    many = b'{"m":["stream_options"],"t":' + b'[{"stream_options":{}}],"t":' * 20 + b"1}"

    assert ask_for_usage(b'{"m":["stream_options"]}', {"stream_options": {}}) is None
    assert ask_for_usage(many, {"stream_options": {}}) is None


def test_a_body_that_ends_in_rubbish_is_left_alone():
    assert ask_for_usage(b'{"stream":true} x', {}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["stream_options", "include_usage", "a", "m"]), inner, max_size=3)
    ),
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["stream_options", "stream", "messages", "tools"]), JSON), st.booleans()
)
def test_whatever_the_body_only_the_option_changes(members, is_indented):
    body = orjson.dumps(members, option=orjson.OPT_INDENT_2 if is_indented else 0)

    changed = asked(body)

    if changed is None:
        assert "stream_options" in members
        return
    options = members.get("stream_options") or {}
    assert orjson.loads(changed) == {**members, "stream_options": {**options, "include_usage": True}}
    assert same_at_start(body, changed) + same_at_start(body[::-1], changed[::-1]) >= len(body) - len("false")


def same_at_start(a: bytes, b: bytes) -> int:
    return next((at for at, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), len(a))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/chat/completions", True),
        (b"/v1/completions", True),
        (b"/v1/responses", False),
        (b"/v1/messages", False),
        (b"/v1/embeddings", False),
    ],
)
def test_only_chat_and_legacy_completions_take_the_option(path, expected):
    assert takes_stream_options(path) is expected


def event(**members: object) -> bytes:
    return b"data: " + orjson.dumps(members) + b"\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DELTA = event(id="c", choices=[{"index": 0, "delta": {"content": '"choices":[],"usage":{}'}}])
FINISH = event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
MERGED = event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
EXTRA = event(id="c", choices=[], usage=USAGE)
FILTERED = event(id="c", choices=[], prompt_filter_results=[], usage=None)
ERROR = event(error={"message": "usage", "usage": 1})
LARGE = event(id="c", choices=[], usage=USAGE, padding="x" * MAX_EXTRA_BYTES)
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
KINDS = [DELTA, FINISH, MERGED, FILTERED, ERROR, LARGE, COMMENT, DONE, b"\n", b"event: x\n\n", b"data\n\n"]


def hidden(*pieces: bytes) -> bytes:
    hider = UsageHider()
    return b"".join([*map(hider.feed, pieces), hider.finish()])


def test_the_extra_event_goes_and_nothing_else():
    stream = [FILTERED, COMMENT, DELTA, FINISH, EXTRA, DONE]
    hider = UsageHider()

    seen = [hider.feed(piece) for piece in stream]

    assert seen == [FILTERED, COMMENT, DELTA, b"", FINISH, DONE]
    assert (hider.finish(), hider.hidden) == (b"", 1)


# The ends of streams from vLLM 0.32.0 and from llama-server (llama.cpp of llama-cpp-python 0.3.36).
VLLM_HEAD = (
    b'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"tiny","choices":['
)
VLLM_STOP = (
    b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}]'
)
VLLM_PRINT = b',"system_fingerprint":"vllm-0.32.0-f0b5e1b5"}\n\n'
VLLM_USAGE = b'],"usage":{"prompt_tokens":21,"total_tokens":29,"completion_tokens":8}'
LLAMA_STOP = (
    b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1,"id":"chatcmpl-d",'
)
LLAMA_NONE = b'data: {"choices":[],"created":1,"id":"chatcmpl-d",'
LLAMA_REST = b'"model":"tiny","system_fingerprint":"b1-0c1e570","object":"chat.completion.chunk"'
LLAMA_TIME = (
    b',"timings":{"cache_n":20,"prompt_ms":2.237,"prompt_per_second":447.02726866338844,"predicted_n":8}}\n\n'
)
LLAMA_USAGE = b',"usage":{"completion_tokens":8,"prompt_tokens":21,"total_tokens":29}'


@pytest.mark.parametrize(
    ("asked", "unasked"),
    [
        (
            VLLM_HEAD + VLLM_STOP + b"}\n\n" + VLLM_HEAD + VLLM_USAGE + VLLM_PRINT,
            VLLM_HEAD + VLLM_STOP + VLLM_PRINT,
        ),
        (
            LLAMA_STOP + LLAMA_REST + b"}\n\n" + LLAMA_NONE + LLAMA_REST + LLAMA_USAGE + LLAMA_TIME,
            LLAMA_STOP + LLAMA_REST + LLAMA_TIME,
        ),
    ],
)
def test_what_stands_in_the_extra_event_alone_is_put_where_it_would_have_stood(asked, unasked):
    for cut in range(len(asked) + 1):
        assert hidden(asked[:cut], asked[cut:], DONE) == unasked + DONE


@pytest.mark.parametrize(
    "between",
    [
        COMMENT,
        DELTA,
        b'data: {"choices":[{"finish_reason":"stop"}],\ndata: "id":"c"}\n\n',
        b'data: {"finish_reason":"x"\n\n',
    ],
    ids=["comment", "delta", "lines", "broken"],
)
def test_a_last_event_that_cannot_be_completed_keeps_its_bytes(between):
    extra = event(id="c", choices=[], usage=USAGE, timings={"n": 1})

    assert hidden(FINISH, between, extra, DONE) == FINISH + between + DONE


def test_the_last_event_waits_for_the_next_one_only():
    hider = UsageHider()

    assert hider.feed(FINISH) == b""
    assert hider.feed(b"data: " + b"x" * MAX_EXTRA_BYTES) == FINISH + b"data: " + b"x" * MAX_EXTRA_BYTES
    assert hider.feed(b"\n\n" + FINISH) == b"\n\n"
    assert hider.feed(FINISH) == FINISH
    assert hider.finish() == FINISH


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_same_bytes_go_wherever_two_cuts_fall(line_end):
    parts = [part.replace(b"\n", line_end) for part in (FINISH, EXTRA, DONE)]
    stream = b"".join(parts)
    for first, second in combinations_with_replacement(range(len(stream) + 1), 2):
        assert hidden(stream[:first], stream[first:second], stream[second:]) == parts[0] + parts[2]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*KINDS, EXTRA]), max_size=8),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 10**6), max_size=8),
)
def test_the_same_bytes_go_however_the_stream_is_cut(parts, line_end, cuts):
    stream = b"".join(parts).replace(b"\n", line_end)
    expected = b"".join(part for part in parts if part != EXTRA).replace(b"\n", line_end)
    cuts = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})

    assert hidden(*(stream[a:b] for a, b in pairwise(cuts))) == expected


PIECES = [
    b"data:",
    b"\n",
    b"\r",
    b"\n\n",
    b"{",
    b'"usage"',
    b'{"choices":[],"usage":{}}',
    b": c",
    b"x" * 3000,
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.randoms(use_true_random=False))
def test_nothing_that_an_upstream_sends_raises_or_depends_on_cuts(pieces, random):
    stream = b"".join(pieces)
    cuts = sorted({0, len(stream), *(random.randrange(len(stream) + 1) for _ in range(6))})

    assert hidden(*(stream[a:b] for a, b in pairwise(cuts))) == hidden(stream)


def test_an_extra_event_without_its_blank_line_is_hidden_at_the_end():
    assert hidden(FINISH, EXTRA[:-2]) == FINISH
    assert hidden(FINISH, EXTRA[:-20]) == FINISH + EXTRA[:-20]


def test_events_pass_at_once_and_an_unfinished_one_in_bounds():
    hider = UsageHider()

    assert hider.feed(DELTA) == DELTA
    assert hider.feed(DELTA + DELTA[:20]) == DELTA
    assert hider.feed(DELTA[20:]) == DELTA
    assert hider.feed(b"data: " + b"x" * MAX_EXTRA_BYTES) == b"data: " + b"x" * MAX_EXTRA_BYTES
    assert hider.feed(b"y") == b"y"
    assert hider.feed(b"\n\n" + EXTRA) == b"\n\n"


def test_what_the_client_does_not_see_is_metered_all_the_same():
    meter, hider = SseMeter(), UsageHider()
    for piece in (DELTA, FINISH, EXTRA, DONE):
        hider.feed(piece)
        meter.feed(piece)

    assert meter.finish().usage == Usage(7, 3, 10)
