"""Volatile lines leave system prompts, and what changes a prompt's beginning is told."""

import json

import pytest

from proxy.adapters.prefix_guard import PrefixGuard, prompt_of
from proxy.adapters.prefix_table import PrefixTable

BILLING = "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=cli; cch=0f3a1;"
IDENTITY = "You are Claude Code, Anthropic's official CLI."
USER = {"role": "user", "content": "Hi"}


def guard(*lines, table=None):
    return PrefixGuard("m", lines or ("x-anthropic-billing-header:",), table or PrefixTable(b"secret"))


def part(text, **fields):
    return {"type": "text", "text": text, **fields}


def input_part(text):
    return {"type": "input_text", "text": text}


STRIPPED = [
    # Claude Code, /v1/messages: a block of its own in front of the others
    (
        {"system": [part(BILLING), part(IDENTITY, cache_control={"type": "ephemeral"})], "messages": [USER]},
        {"system": [part(IDENTITY, cache_control={"type": "ephemeral"})], "messages": [USER]},
    ),
    (
        {"system": f"{BILLING}\n{IDENTITY}", "messages": [USER]},
        {"system": IDENTITY, "messages": [USER]},
    ),
    ({"system": BILLING, "messages": [USER], "x": 1}, {"messages": [USER], "x": 1}),
    ({"system": [part(BILLING)], "messages": [USER]}, {"messages": [USER]}),
    # the same as chat, and a system message further down
    (
        {"messages": [{"role": "system", "content": f"{BILLING}\n\n{IDENTITY}"}, USER]},
        {"messages": [{"role": "system", "content": f"\n{IDENTITY}"}, USER]},
    ),
    (
        {"messages": [{"role": "developer", "content": [part(f"a\n{BILLING}\nb"), part(BILLING)]}, USER]},
        {"messages": [{"role": "developer", "content": [part("a\nb")]}, USER]},
    ),
    ({"messages": [USER, {"role": "system", "content": BILLING}]}, {"messages": [USER]}),
    # the Responses API
    (
        {"instructions": f"{IDENTITY}\n{BILLING}", "input": "Hi", "x": 1},
        {"instructions": IDENTITY, "input": "Hi", "x": 1},
    ),
    ({"instructions": BILLING, "input": [USER]}, {"input": [USER]}),
    (
        {"input": [{"type": "message", "role": "developer", "content": [input_part(f"{BILLING}\nb")]}, USER]},
        {"input": [{"type": "message", "role": "developer", "content": [input_part("b")]}, USER]},
    ),
    ({"messages": [USER, {"role": "system", "content": [part(BILLING)]}]}, {"messages": [USER]}),
]


@pytest.mark.parametrize(("body", "expected"), STRIPPED)
def test_volatile_lines_are_taken_out_of_system_prompts(body, expected):
    before = json.dumps(body)

    assert guard().rewrite(body) == expected
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None, "system": None},
        {"messages": [USER], "system": ""},
        {"messages": [{"role": "user", "content": BILLING}]},
        {"messages": [{"role": "assistant", "content": [part(BILLING)]}]},
        {"messages": [{"role": "system", "content": f"Never write {BILLING}"}]},
        {"messages": [{"role": "system", "content": f" {BILLING}"}]},
        {"messages": [{"role": "system", "content": None}, {"role": "system"}, "x"]},
        {"system": [{"type": "image", "text": 7}, "x", part(IDENTITY)]},
        {"instructions": IDENTITY, "input": BILLING},
        {"instructions": None, "input": [{"role": "user", "content": BILLING}, {"type": "reasoning"}]},
    ],
)
def test_everything_else_stays_the_same_object(body):
    assert guard().rewrite(body) is body


def test_lines_of_ones_own_are_taken_out_too():
    subject = guard("Today's date:", "cwd:")
    body = {"messages": [{"role": "system", "content": "A\nToday's date: 1 May\ncwd: /x\nB\n"}]}

    assert subject.rewrite(body)["messages"][0]["content"] == "A\nB\n"


def test_an_empty_prefix_takes_nothing_out():
    body = {"messages": [{"role": "system", "content": "A\nB"}]}

    assert guard("").rewrite(body) is body


# comparing


def turn(number, *, system=IDENTITY, tools=("t",), **fields):
    messages = [{"role": "system", "content": system}, USER]
    for each in range(number):
        messages += [{"role": "assistant", "content": f"a{each}"}, {"role": "user", "content": f"u{each}"}]
    return {"model": "m", "tools": [{"name": name} for name in tools], "messages": messages, **fields}


def compare(subject, body, session=b"s"):
    found = subject.compare(subject.key(session, body), body)
    return None if found.divergence is None else found.divergence.part


def test_turns_of_a_conversation_keep_their_prefix():
    subject = guard()

    assert [compare(subject, turn(number, max_tokens=number)) for number in range(4)] == [None] * 4


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (turn(1, tools=("t", "u")), "tools"),
        (turn(1, tools=("u", "t")), "tools"),
        (turn(1, system="It is 12:01. " + IDENTITY), "system"),
        (turn(1) | {"system": "new"}, "system"),
        (
            {**turn(1), "messages": [*turn(1)["messages"][:-1], {"role": "system", "content": "x"}]},
            "messages",
        ),
    ],
)
def test_the_part_that_changed_is_named(changed, part):
    subject = guard()
    compare(subject, turn(1))

    assert compare(subject, changed) == part


def response_turn(number, *, instructions=IDENTITY, **fields):
    said = [{"role": "user", "content": [input_part("Hi")]}]
    for each in range(number):
        call = {"type": "function_call", "call_id": f"c{each}", "name": "t", "arguments": "{}"}
        said += [call, {"type": "function_call_output", "call_id": f"c{each}", "output": "x"}]
    return {
        "instructions": instructions,
        "tools": [{"type": "function", "name": "t"}],
        "input": said,
        **fields,
    }


def test_turns_of_the_responses_api_are_compared_too():
    subject = guard()

    assert [compare(subject, response_turn(number)) for number in range(4)] == [None] * 4
    assert compare(subject, response_turn(4, instructions="It is 12:01. " + IDENTITY)) == "system"
    changed = response_turn(4)
    changed["input"][2] = {**changed["input"][2], "output": "y"}
    assert compare(subject, changed) == "messages"
    assert compare(subject, response_turn(4, tools=[{"type": "function", "name": "u"}])) == "tools"


def test_an_input_that_is_a_text_is_a_message_of_the_user():
    assert list(prompt_of({"input": "Hi"})) == list(prompt_of({"input": [USER]}))


@pytest.mark.parametrize("member", [{"previous_response_id": "resp_1"}, {"conversation": {"id": "conv_1"}}])
def test_a_prompt_that_the_upstream_keeps_is_not_compared(member):
    assert guard().key(b"s", {"input": "Go on", **member}) is None
    assert guard().key(b"s", {"input": "Go on", **dict.fromkeys(member)}) is not None


def test_a_request_for_a_title_is_compared_with_its_like():
    subject = guard()
    compare(subject, turn(1))

    assert compare(subject, turn(0, system="Name it.", tools=())) is None
    assert compare(subject, turn(2)) is None


def test_models_and_sessions_are_apart():
    table = PrefixTable(b"secret")
    one, other = guard(table=table), PrefixGuard("n", (), table)
    compare(one, turn(1))

    assert compare(other, turn(1, system="x")) is None
    assert compare(one, turn(1, system="x"), session=b"t") is None
    assert table.sessions == 3


def test_the_marks_that_move_from_turn_to_turn_do_not_count():
    mark = {"cache_control": {"type": "ephemeral"}}
    first = {
        "system": [part(IDENTITY, **mark)],
        "tools": [{"name": "t", **mark}],
        "messages": [{"role": "user", "content": [part("Hi", **mark), "x"]}],
    }
    second = {
        "system": [part(IDENTITY)],
        "tools": [{"name": "t"}],
        "messages": [
            {"role": "user", "content": [part("Hi"), "x"]},
            {"role": "assistant", "content": [part("Yes?")]},
            {"role": "user", "content": [part("Go on.", **mark)]},
        ],
    }
    subject = guard()
    compare(subject, first)

    assert compare(subject, second) is None


def test_a_prompt_has_its_tools_first():
    body = turn(0) | {"system": "Be brief."}

    assert [part for part, _ in prompt_of(body)] == ["tools", "system", "system", "messages"]


def test_what_the_upstream_counted_is_told_with_the_next_request():
    subject, body = guard(), turn(0)
    key = subject.key(b"s", body)
    subject.compare(key, body)
    subject.used(key, prompt_tokens=10, cached_tokens=4)

    assert subject.compare(key, body).cached_share == 0.4
