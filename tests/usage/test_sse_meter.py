"""The meter of streamed answers: every dialect, every cut."""

import re
from itertools import combinations_with_replacement, pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.usage.ends import WHOLE_BYTES
from proxy.usage.meter import Metered
from proxy.usage.sse_meter import LAST_EVENTS, MAX_CALLS, SseMeter
from proxy.usage.tokens import Usage

HEAD = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":['


def delta(text: bytes, finish: bytes = b"null", rest: bytes = b"") -> bytes:
    return (
        b"data: " + HEAD + b'{"index":0,"delta":{"content":"' + text + b'"},"logprobs":null,'
        + b'"finish_reason":' + finish + b"}]" + rest + b"}\n\n"
    )  # fmt: skip


DONE = b"data: [DONE]\n\n"
USAGE = b'"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3}'
USAGE_CHUNK = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],' + USAGE + b"}\n\n"
FINISH = delta(b"", b'"stop"')
TEXT = delta(b"", b"null") + delta(b"Hel") + delta(b"lo \\n \xe2\x80\xa8") + delta(b"!")
FAKE = rb"\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1} \"finish_reason\":\"stop\" data: [DONE]"

VLLM = TEXT + FINISH + USAGE_CHUNK + DONE
TRANSFORMERS = TEXT + delta(b"", b'"stop"', b"," + USAGE)
FORCED = b"".join(
    delta(
        b"x", b"null", b',"usage":{"prompt_tokens":7,"total_tokens":%d,"completion_tokens":%d}' % (7 + n, n)
    )
    for n in range(4)
)
NULLS = (
    (delta(b"x", b"null", b',"usage":null') * 3 + delta(b"", b'"stop"', b',"usage": null'))
    + USAGE_CHUNK
    + DONE
)
MLX = b": keepalive 16/17\n\n: keepalive 17/17\n\n" + VLLM
COMPACT = VLLM.replace(b"data: ", b"data:").replace(b"\n\n", b"\r\n\r\n")
LLAMA = (
    TEXT
    + delta(
        b"",
        b'"stop"',
        b',"timings":{"cache_n":2,"prompt_n":5,"prompt_ms":1.5,"predicted_n":3,"predicted_ms":2}',
    )
    + DONE
)
FAKED = delta(FAKE) + VLLM
ANTHROPIC = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"msg_1","role":"assistant","content":[],'
    b'"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,'
    b'"output_tokens":1}}}\n\n'
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1",'
    b'"name":"f","input":{}}}\n\n'
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta",'
    b'"partial_json":"{}"}}\n\n'
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":3}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","usage":null}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hello"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1","output":['
    b'{"type":"function_call","name":"f","arguments":"{}"}],"usage":{"input_tokens":7,'
    b'"input_tokens_details":{"cached_tokens":2},"output_tokens":3,'
    b'"output_tokens_details":{"reasoning_tokens":1},'
    b'"total_tokens":10},"user":null}}\n\n'
)
TGI = (
    b'data:{"index":1,"token":{"id":1,"text":"Hel","logprob":0,"special":false},"generated_text":null,'
    b'"details":null}\n\n'
    b'data:{"index":3,"token":{"id":2,"text":"lo","logprob":0,"special":false},"generated_text":"Hello",'
    b'"details":{"finish_reason":"length","generated_tokens":3,"seed":null,"input_length":7}}\n\n'
)
CALLS = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a",'
    b'"function":{"name":"f","arguments":""}},'
    b'{"index":1,"id":"b","function":{"name":"g","arguments":""}}]},"finish_reason":null}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{}},'
    b'{"index":1,"id":"b",'
    b'"function":{"name":"g","arguments":"{}"}}]},'
    b'"finish_reason":"tool_calls"}]}\n\n'
)
SPLIT_DATA = VLLM.replace(b'"choices":[]', b'"choices":\ndata: []')

SEVEN_THREE = Usage(7, 3, 10)

# name: (stream, usage, terminal, events, tool calls)
STREAMS: dict[str, tuple[bytes, Usage | None, bool, int, int]] = {
    "vllm": (VLLM, SEVEN_THREE, True, 6, 0),
    "usage in the finish chunk": (TRANSFORMERS, SEVEN_THREE, True, 5, 0),
    "usage in every chunk": (FORCED, SEVEN_THREE, False, 4, 0),
    "usage in all chunks to the end": (FORCED + FINISH + USAGE_CHUNK + DONE, SEVEN_THREE, True, 6, 0),
    "null usage in every chunk": (NULLS, SEVEN_THREE, True, 5, 0),
    "comments first": (MLX, SEVEN_THREE, True, 6, 0),
    "no blank and CR LF": (COMPACT, SEVEN_THREE, True, 6, 0),
    "CR alone": (VLLM.replace(b"\n", b"\r"), SEVEN_THREE, True, 6, 0),
    "blanks in the JSON": (VLLM.replace(b'":', b'" : '), SEVEN_THREE, True, 6, 0),
    "timings": (LLAMA, Usage(7, 3, 10, cached=2), True, 5, 0),
    "text that looks like usage": (FAKED, SEVEN_THREE, True, 7, 0),
    "only text that looks like usage": (delta(FAKE), None, False, 1, 0),
    "anthropic": (ANTHROPIC, Usage(7, 3, 10, cached=2), True, 5, 1),
    "responses": (RESPONSES, Usage(7, 3, 10, cached=2, reasoning=1), True, 3, 1),
    "tgi": (TGI, SEVEN_THREE, True, 2, 0),
    "tool calls named twice": (CALLS, None, True, 2, 2),
    "data over two lines": (SPLIT_DATA, SEVEN_THREE, True, 6, 0),
    "no last newline": (VLLM[:-2], SEVEN_THREE, True, 6, 0),
    "cut in the usage": (VLLM[: VLLM.index(b'"completion_tokens"')], None, True, 5, 0),
    "cut in the finish": (VLLM[: VLLM.index(b'"stop"') + 3], None, False, 4, 0),
    "no usage": (TEXT + FINISH + DONE, None, True, 5, 0),
    "usage and no [DONE]": (TEXT + FINISH + USAGE_CHUNK, SEVEN_THREE, True, 6, 0),
    "only [DONE]": (DONE, None, True, 0, 0),
    "nothing": (b"", None, False, 0, 0),
    "one choice of two finished": (
        delta(b"a", b'"stop"') + delta(b"b").replace(b'"index":0', b'"index":1'), None, False, 2, 0,
    ),
}  # fmt: skip


def metered(*pieces: bytes) -> Metered:
    meter = SseMeter()
    for piece in pieces:
        meter.feed(piece)
    return meter.finish()


@pytest.mark.parametrize("name", STREAMS)
def test_every_dialect_is_read(name):
    stream, usage, terminal, events, calls = STREAMS[name]

    found = metered(stream)

    assert (found.usage, found.terminal, found.events, found.tool_calls) == (usage, terminal, events, calls)


@pytest.mark.parametrize("name", STREAMS)
def test_same_result_byte_by_byte(name):
    stream = STREAMS[name][0]

    assert metered(*(stream[at : at + 1] for at in range(len(stream)))) == metered(stream)


@pytest.mark.parametrize("name", STREAMS)
def test_same_result_event_by_event(name):
    stream = STREAMS[name][0] * 4  # more than one round of what is kept
    events = re.findall(rb".+?(?:\n\n|\r\n\r\n|$)", stream, re.DOTALL)

    assert b"".join(events) == stream
    assert metered(*events) == metered(stream)


@pytest.mark.parametrize("stream", [COMPACT[-150:], VLLM[-150:], VLLM[-150:].replace(b"\n", b"\r")])
def test_same_result_however_two_cuts_fall(stream):
    expected = metered(stream)
    for first, second in combinations_with_replacement(range(len(stream) + 1), 2):
        assert metered(stream[:first], stream[first:second], stream[second:]) == expected


@settings(deadline=None)
@given(st.sampled_from(list(STREAMS.values())), st.lists(st.integers(0, 4000), max_size=12))
def test_same_result_however_the_bytes_are_cut(case, cuts):
    stream = case[0] * 3
    cuts = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})

    assert metered(*(stream[a:b] for a, b in pairwise(cuts))) == metered(stream)


PIECES = st.sampled_from(
    [b"data:", b"data: ", b"\n", b"\r", b"\n\n", b"{", b"}", b'"usage":', b'{"usage":{"prompt_tokens":1}}',
     b"[DONE]", b": c", b"event: x", b'"name"', b'{"choices":[]}', b"\\", b"\xff", b"null", b"x" * 700]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=60), st.randoms(use_true_random=False))
def test_nothing_that_an_upstream_sends_raises_or_depends_on_cuts(pieces, random):
    stream = b"".join(pieces)
    cuts = sorted({0, len(stream), *(random.randrange(len(stream) + 1) for _ in range(8))})

    assert metered(*(stream[a:b] for a, b in pairwise(cuts))) == metered(stream)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_of_a_model_is_taken_for_usage(text):
    event = {
        "id": "c",
        "choices": [{"index": 0, "delta": {"content": text + '"usage":{"prompt_tokens":1}' + text}}],
    }
    stream = b"data: " + orjson.dumps(event) + b"\n\n"

    found = metered(stream, stream)

    assert found.usage is None
    assert not found.terminal


def test_usage_inside_tool_arguments_that_are_an_object_is_not_the_servers():
    own = delta(b"x", b"null", b"," + USAGE)
    fake = {
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": [{"function": {"arguments": {"usage": {"prompt_tokens": 1}}}}]},
            }
        ]
    }

    found = metered(own, b"data: " + orjson.dumps(fake) + b"\n\n")

    assert found.usage == Usage(7, 3, 10)


def test_an_error_event_is_seen_and_finishes_nothing():
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'

    alone, with_done = metered(TEXT, error), metered(TEXT, error, DONE)

    assert (alone.error, alone.terminal) == (True, False)
    assert (with_done.error, with_done.terminal) == (True, True)
    assert metered(TEXT, b'data: {"error": "text"}\n\n').error
    assert metered(RESPONSES.replace(b"response.completed", b"response.failed")).error
    assert not metered(VLLM).error
    assert not metered(delta(rb"\"error\":1")).error


@pytest.mark.parametrize("cut", [1, 4096, 1 << 20])
def test_a_line_of_a_mebibyte_is_metered_from_its_ends(cut):
    text = b"A" * (1 << 20)
    completed = (
        b'data: {"type":"response.completed","response":{"id":"resp_1","output":"' + text
        + b'","usage":{"input_tokens":7,"output_tokens":3},"user":null}}\n\n'
    )  # fmt: skip
    chat = (
        b"data: "
        + HEAD
        + b'{"index":0,"delta":{"content":"'
        + text
        + b'"},"finish_reason":"stop"}],'
        + USAGE
        + b"}\n\n"
    )
    for stream in (completed, chat):
        pieces = (
            (stream[at : at + cut] for at in range(0, len(stream), cut)) if cut > 1 else (stream[:-1], b"\n")
        )

        found = metered(*pieces)

        assert (found.usage, found.terminal, found.events) == (Usage(7, 3, 10), True, 1)
        assert found.response_id == ("resp_1" if stream is completed else "chatcmpl-1")


def test_usage_ahead_of_a_long_line_is_found_too():
    stream = (
        b'data: {"id":"c",'
        + USAGE
        + b',"choices":[{"delta":{"content":"'
        + b"A" * 99_999
        + b'"},"finish_reason":null}]}\n\n'
    )

    found = metered(stream)

    assert (found.usage, found.terminal) == (Usage(7, 3, 10), False)


@pytest.mark.parametrize("cut", [1000, 10**6])
def test_long_data_over_several_lines_is_metered_too(cut):
    long = b'"choices":[{"delta":{"content":"' + b"A" * 30_000 + b'"},"finish_reason":"stop"}],'
    for stream in (
        b'data: {"id":"c",\ndata: ' + long + b"\ndata: " + USAGE + b"}\n\n",
        b"data: {" + long + b"\ndata: " + USAGE + b"}\n\n",
    ):
        found = metered(*(stream[at : at + cut] for at in range(0, len(stream), cut)))

        assert (found.usage, found.terminal, found.events) == (Usage(7, 3, 10), True, 1)


def test_a_long_event_that_says_nothing_leaves_things_as_they_were():
    image = b'data: {"type":"image.delta","b64":"' + b"A" * 30_000 + b'"}\n\n'

    found = metered(delta(b"x", b"null", b"," + USAGE), image, b"data: " + b"B" * 30_000 + b"\n\n")

    assert (found.usage, found.terminal, found.events) == (Usage(7, 3, 10), False, 3)


def test_llama_servers_own_stream_ends_with_stop():
    stream = b'data: {"content":"x","stop":false}\n\ndata: {"content":"","stop":true,"timings":{}}\n\n'

    assert metered(stream[:36]).terminal is False
    assert metered(stream).terminal is True


def test_an_endless_line_is_kept_in_bounds():
    meter = SseMeter()
    for _ in range(300):
        meter.feed(b"data: " + b"x" * 4096)

    assert len(meter._line.head) + len(meter._line.tail) <= WHOLE_BYTES


def test_what_an_open_stream_keeps_is_small():
    meter = SseMeter()
    for _ in range(10_000):
        meter.feed(delta(b"word"))

    assert sum(map(len, meter._last)) <= LAST_EVENTS * 300
    assert meter._line is None


def test_only_so_many_tool_calls_are_told_apart():
    event = (
        '{{"choices":[{{"index":{},"delta":{{"tool_calls":[{{"index":0,"function":{{"name":"f"}}}}]}}}}]}}'
    )

    found = metered(*(b"data: " + event.format(n).encode() + b"\n\n" for n in range(3 * MAX_CALLS)))

    assert found.tool_calls == MAX_CALLS


def test_events_can_be_watched_while_they_come():
    meter = SseMeter()
    meter.feed(b": keep-alive\n\n")
    before = meter.events
    meter.feed(TEXT[:5])
    meter.feed(TEXT[5:])

    assert (before, meter.events) == (0, 4)


def test_relayed_text_of_a_cut_stream_is_counted():
    found = metered(delta(b""), *(delta(b"abcd") for _ in range(500)), delta(b"abcd")[:40])

    assert (found.events, found.deltas) == (501, 500)
    assert abs(found.text_bytes - 2000) < 40


def test_a_short_cut_stream_is_counted_exactly():
    found = metered(delta(b""), delta(b"abcd"), delta("é".encode()))

    assert (found.deltas, found.text_bytes) == (2, 6)


def test_text_of_reasoning_and_tool_arguments_counts_as_text():
    reasoning = b'data: {"choices":[{"delta":{"reasoning":"abc","content":null}}]}\n\n'

    assert metered(reasoning).text_bytes == 3
    assert metered(CALLS).text_bytes == 2
    assert (
        metered(ANTHROPIC[: ANTHROPIC.index(b"event: message_delta")].replace(b'"usage"', b'"u"')).text_bytes
        == 2
    )
    assert metered(RESPONSES[: RESPONSES.index(b"event: response.completed")]).text_bytes == 5


def test_the_growing_usage_of_a_cut_stream_is_the_last_whole_one():
    cut = FORCED[: FORCED.rindex(b'"completion_tokens":3')]

    assert metered(cut).usage == Usage(7, 2, 9)
