"""Where prompts of a session stop being the same is found, and memory stays bounded."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.prefix_table import ALARMING, BLOCK_BYTES, MAX_BLOCKS, MAX_PROMPTS, PrefixTable


def table(**limits):
    return PrefixTable(b"secret", **limits)


def compared(subject, *texts, key="s"):
    """The first text is the system prompt, the others are messages."""
    parts = ["system", *["messages"] * len(texts)]
    return subject.compare(key, list(zip(parts, texts, strict=False)), lasting="messages")


def where(found):
    return (found.divergence.at, found.divergence.part) if found.divergence is not None else None


SYSTEM = b"s" * 700


def test_the_first_prompt_of_a_session_is_compared_with_nothing():
    found = compared(table(), SYSTEM, b"one")

    assert (found.is_first, where(found)) == (True, None)


def test_a_conversation_that_goes_on_keeps_its_prefix():
    subject = table()
    compared(subject, SYSTEM, b"one")

    for messages in ([b"one", b"two"], [b"one", b"two", b"three" * 200], [b"one", b"two", b"three" * 200]):
        found = compared(subject, SYSTEM, *messages)

        assert (found.is_first, where(found)) == (False, None)


def test_a_shorter_prompt_with_the_same_beginning_loses_nothing():
    subject = table()
    compared(subject, SYSTEM, b"one", b"two")

    assert where(compared(subject, SYSTEM, b"one")) is None
    assert where(compared(subject, SYSTEM, b"one", b"two", b"three")) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([b"S" + SYSTEM[1:], b"one", b"two"], (0, "system")),
        ([SYSTEM[:-1] + b"S", b"one", b"two"], (2 * BLOCK_BYTES, "system")),
        ([SYSTEM + b"S", b"one", b"two"], (2 * BLOCK_BYTES, "system")),
        ([SYSTEM, b"other", b"two"], (700, "messages")),
        ([SYSTEM, b"one", b"other"], (703, "messages")),
    ],
)
def test_the_block_that_differs_is_named(changed, expected):
    subject = table()
    compared(subject, SYSTEM, b"one", b"two", b"three")

    assert where(compared(subject, *changed)) == expected


def test_a_prompt_is_compared_with_the_most_similar_of_the_last_ones():
    subject = table()
    compared(subject, SYSTEM, b"main", b"m1")
    compared(subject, SYSTEM, b"agent", b"a1")

    assert where(compared(subject, SYSTEM, b"main", b"m1", b"m2")) is None
    assert where(compared(subject, SYSTEM, b"agent", b"a1", b"a2")) is None


def test_only_a_few_prompts_of_a_session_are_remembered():
    subject = table()
    for number in range(MAX_PROMPTS + 1):
        compared(subject, SYSTEM, b"thread %d" % number)

    assert where(compared(subject, SYSTEM, b"thread 0")) == (700, "messages")
    assert where(compared(subject, SYSTEM, b"thread %d" % MAX_PROMPTS)) is None


def test_sessions_know_nothing_of_each_other():
    subject = table()
    compared(subject, SYSTEM, b"one", key="a")

    assert compared(subject, b"other", key="b").is_first


def test_a_beginning_that_changes_each_time_is_alarming_once():
    subject = table()
    found = [compared(subject, b"%d" % number + SYSTEM, b"one") for number in range(ALARMING + 3)]

    assert [each.is_alarming for each in found] == [number == ALARMING for number in range(ALARMING + 3)]


def test_a_conversation_that_was_edited_is_not_alarming():
    subject = table()

    found = [compared(subject, SYSTEM, b"%d" % number) for number in range(ALARMING + 3)]

    assert not any(each.is_alarming for each in found)


def test_the_cached_share_is_that_of_the_request_before():
    subject = table()
    assert compared(subject, SYSTEM).cached_share is None

    subject.used("s", 1000, 250)
    subject.used("another", 1000, 1000)

    assert compared(subject, SYSTEM).cached_share == 0.25
    subject.used("s", 0, 0)
    assert compared(subject, SYSTEM).cached_share == 0.25


def test_nothing_of_a_prompt_is_kept():
    subject = table()
    words = os.urandom(20).hex().encode() * 100
    compared(subject, words, words)

    (session,) = subject._sessions.values()
    assert all(words[at : at + 4] not in kept for kept in session.prompts for at in range(40))


def test_digests_cannot_be_compared_across_installations():
    one, other = PrefixTable(b"one"), PrefixTable(b"other")
    compared(one, SYSTEM)
    compared(other, SYSTEM)

    assert one._sessions["s"].prompts != other._sessions["s"].prompts


def test_a_very_long_prompt_is_followed_only_so_far():
    subject = table()
    long = b"x" * (MAX_BLOCKS * BLOCK_BYTES)
    compared(subject, long, b"one")

    assert subject.digests == MAX_BLOCKS
    assert where(compared(subject, long, b"other")) is None


def test_the_least_recently_used_sessions_go_first():
    subject = table(max_sessions=3)
    for key in "abcad":
        compared(subject, SYSTEM, key=key)

    assert subject.sessions == 3
    assert [compared(subject, SYSTEM, key=key).is_first for key in "acd"] == [False, False, False]


def test_digests_are_bounded_in_all():
    subject = table(max_digests=10)
    for key in range(5):
        compared(subject, SYSTEM, b"one", key=key)  # four blocks each

    assert (subject.sessions, subject.digests) == (2, 8)


messages = st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=5)


@given(messages, messages)
def test_what_is_reported_is_where_the_bytes_differ(one, other):
    subject = table()
    compared(subject, SYSTEM, *one)
    found = compared(subject, SYSTEM, *other)

    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    before = len(SYSTEM) + sum(map(len, other[:same]))
    if same == min(len(one), len(other)):
        assert found.divergence is None
    else:
        # Within the message that differs, to the block; a message that ends inside another's block
        # is a different one.
        at, end = found.divergence.at, before + len(other[same])
        assert before <= at <= end
        differs = next(
            (n for n, (a, b) in enumerate(zip(one[same], other[same], strict=False)) if a != b), None
        )
        if differs is not None:
            assert at == before + differs - differs % BLOCK_BYTES
