"""The limit on an answer fits what the context leaves, and no other byte of the request changes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.clamp_max_tokens import MEDIA_TOKENS, USEFUL_TOKENS, ClampMaxTokens, TokenRate

CONTEXT = 32768
WORDS = "Write the words in the file, then read it again. "


def clamp(context_length=CONTEXT, margin=256, rate=None):
    return ClampMaxTokens(context_length=context_length, margin=margin, rate=rate or TokenRate())


def request(size=0, **fields):
    text = (WORDS * (size // len(WORDS) + 1))[:size]
    return json.dumps({"model": "m", **fields, "messages": [{"role": "user", "content": text}]}).encode()


def sent(body, name="max_tokens"):
    return json.loads(body)[name]


def test_a_limit_is_lowered_to_what_is_left():
    body = request(30_000, max_tokens=32000)

    rewritten = clamp().rewrite(body)

    # 10,000 to 11,000 tokens at three bytes each, and the margin
    assert CONTEXT - 256 - 11_000 < sent(rewritten) < CONTEXT - 256 - 10_000
    assert rewritten == body.replace(b"32000", str(sent(rewritten)).encode())


@pytest.mark.parametrize(
    "body",
    [
        request(30_000),
        request(30_000, max_tokens=5),
        request(30_000, max_tokens=None),
        request(30_000, max_tokens="32000"),
        request(30_000, max_tokens=32000.0),
        request(30_000, max_tokens=-1),
        request(30_000, metadata={"max_tokens": 32000}),
        b'{"max_tokens": 32000',
        b'[{"max_tokens": 32000}]',
        b"",
        b'"max_tokens": 32000',
        b'{"a":"max_tokens":32000}',
    ],
)
def test_a_request_that_asks_for_nothing_too_large_is_the_same_object(body):
    assert clamp().rewrite(body) is body


def test_a_look_alike_in_a_tool_or_a_text_is_left_alone():
    tool = {"function": {"name": "f", "parameters": {"default": {"max_tokens": 99999, "a": 1}}}}
    messages = [{"role": "user", "content": '{"max_tokens": 99999, "a": 1}'}]
    body = json.dumps({"tools": [tool], "messages": messages, "max_tokens": 99999, "n": 1}).encode()

    rewritten = json.loads(clamp().rewrite(body))

    assert rewritten["max_tokens"] < CONTEXT
    assert (rewritten["tools"], rewritten["messages"]) == ([tool], messages)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("last", [True, False])
def test_every_name_is_known_at_either_end_of_the_body(name, last):
    body = request(30_000)
    member = f'"{name}" : 99999'.encode()
    body = body[:-1] + b" , " + member + b" }" if last else b"{ " + member + b" ," + body[1:]

    rewritten = clamp().rewrite(body)

    assert sent(rewritten, name) < CONTEXT - 10_000
    assert rewritten.replace(str(sent(rewritten, name)).encode(), b"99999") == body


def test_both_names_and_repeated_ones_are_lowered():
    body = b'{"max_tokens":99999,"max_completion_tokens":88888,"messages":[],"max_tokens":77777}'

    rewritten = clamp().rewrite(body)

    left = str(sent(rewritten)).encode()
    assert rewritten == body.replace(b"99999", left).replace(b"88888", left).replace(b"77777", left)


def test_it_is_never_below_one():
    assert sent(clamp().rewrite(request(1_000_000, max_tokens=32000))) == 1
    assert sent(clamp(context_length=100).rewrite(request(max_tokens=32000))) == 1


def test_where_the_estimate_may_be_too_careful_a_useful_answer_is_tried():
    # 34,000 tokens at three bytes each, 20,000 at five
    body = request(102_000, max_tokens=32000)

    assert sent(clamp().rewrite(body)) == USEFUL_TOKENS


def test_what_the_upstream_counts_makes_the_estimate_exact():
    subject = clamp()
    for size in (20_000, 40_000, 60_000, 80_000):
        body = request(size)
        subject.learn(body, round(len(body) / 4.2))

    left = sent(subject.rewrite(request(100_000, max_tokens=32000)))

    real = CONTEXT - 256 - 100_000 / 4.2
    assert 0.85 * real < left <= real


def test_a_model_that_was_learned_wrongly_is_learned_anew():
    rate = TokenRate()
    rate.learn(10_000, 9_000)
    for _ in range(40):
        rate.learn(10_000, 2_500)

    assert 2_400 < rate.least(10_000) <= 2_500 <= rate.most(10_000) < 2_700


@given(st.lists(st.tuples(st.integers(2048, 10**6), st.floats(0.1, 0.9)), min_size=1, max_size=30))
def test_the_careful_estimate_is_never_below_the_hopeful_one(seen):
    rate = TokenRate()
    for size, tokens_a_byte in seen:
        rate.learn(size, round(size * tokens_a_byte))

        assert rate.most(50_000) >= 0
        assert rate.least(50_000) <= rate.most(50_000)


@pytest.mark.parametrize(("size", "tokens"), [(100, 90), (10_000, 0)])
def test_what_says_nothing_about_the_rate_is_not_learned(size, tokens):
    rate = TokenRate()

    rate.learn(size, tokens)

    assert rate.most(30_000) == 10_000


def with_image(part, **fields):
    return json.dumps({"messages": [{"role": "user", "content": [part]}], **fields}).encode()


IMAGE = base64.b64encode(bytes(range(256)) * 2000).decode()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
        {"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}},
    ],
)
def test_an_image_is_not_taken_for_text(part):
    subject, body = clamp(), with_image(part, max_tokens=32000)
    subject.learn(body, 10)

    left = sent(subject.rewrite(body))

    assert CONTEXT - 256 - MEDIA_TOKENS - 200 < left < CONTEXT - 256 - MEDIA_TOKENS


def test_a_body_that_names_it_all_over_is_searched_only_so_far():
    body = b'{"a":[' + b",".join([b'{"max_tokens":99999}'] * 1000) + b'],"max_tokens":99999}'

    assert clamp().rewrite(body) is body


def test_a_member_in_the_middle_of_too_much_is_left_alone():
    filler = b'"' + b"x" * (5 * 1024 * 1024) + b'"'
    body = b'{"a":' + filler + b',"max_tokens":99999,"b":' + filler + b"}"

    assert clamp().rewrite(body) is body


@pytest.mark.parametrize("member", [{"previous_response_id": "resp_1"}, {"conversation": {"id": "conv_1"}}])
def test_a_conversation_that_the_upstream_keeps_teaches_nothing(member):
    subject, body = clamp(), request(40_000, max_tokens=32000)
    before = subject.rewrite(body)

    subject.learn(request(4_000, **member), 4_000)
    assert subject.rewrite(body) == before

    subject.learn(request(4_000, **dict.fromkeys(member)), 4_000)
    assert subject.rewrite(body) != before
