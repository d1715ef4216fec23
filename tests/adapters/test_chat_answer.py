import json
import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.chat import TOOLS, adapters, fed, request, seen, stream, tool, whole

from proxy.adapters.base import Counts
from proxy.adapters.chat_answer import ChatAnswer
from proxy.adapters.chat_deltas import Emitter

READ = "<tool_call>\n<function=read>\n<parameter=path>\nb\n</parameter>\n</function>\n</tool_call>"
HALF = "<tool_call>\n<function=read>\n<parameter=path>\nb"


def translated(body, *, asked=None, **options):
    return adapters(**options).plan(asked or request()).answer_json(body)


def only_choice(body):
    (choice,) = orjson.loads(body)["choices"]
    return choice


def called(choice):
    calls = choice["message"].get("tool_calls", ())
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_calls_become_a_message_without_content():
    body = whole(READ, tool_calls=[], reasoning_content=None, refusal=None)

    choice = only_choice(translated(body))

    (call,) = choice["message"].pop("tool_calls")
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None},
        "finish_reason": "tool_calls",
    }
    assert call == {
        "id": call["id"],
        "type": "function",
        "function": {"name": "read", "arguments": '{"path": "b"}'},
    }
    assert call["id"].startswith("call_")


def test_what_stands_beside_the_choices_stays():
    before, after = orjson.loads(whole(READ)), orjson.loads(translated(whole(READ)))

    assert {**before, "choices": 0} == {**after, "choices": 0}


@pytest.mark.parametrize(
    "body",
    [
        whole("Just text with < and </think> in it"),
        whole("Cut", "length"),
        whole(""),
        whole(None),
        whole(None, "tool_calls", tool_calls=[{"id": "x", "function": {"name": "f", "arguments": "{}"}}]),
        whole(READ, "tool_calls", tool_calls=[{"id": "x", "function": {"name": "f", "arguments": "{}"}}]),
        whole([{"type": "text", "text": READ}]),
        whole("text", reasoning_content="why"),
        b'{"error": {"message": "no"}}',
        b'{"choices": {}}',
        b'{"choices": [1, {"message": 1}]}',
        b'{"choices": [ { "message" : {} } ]}',
        b"[]",
        b"not json",
    ],
)
def test_an_answer_in_which_nothing_changes_keeps_its_bytes(body):
    assert translated(body) == body


@pytest.mark.parametrize("text", ["<tool_call>", "<think>", "<tool_call>\n<function=read", " ", "a <", "\n"])
@pytest.mark.parametrize(
    "options", [{}, {"reasoning": {"emit": "keep"}}, {"format": "hermes"}, {"format": "auto"}]
)
def test_what_waits_for_the_end_comes_once(text, options):
    assert only_choice(translated(whole(text), **options))["message"]["content"] == text


@pytest.mark.parametrize(
    ("text", "upstream", "downstream", "calls"),
    [
        (READ, "stop", "tool_calls", 1),
        (READ, "length", "length", 1),
        (READ + HALF, "length", "length", 1),
        (HALF, "length", "length", 0),
        (HALF, "stop", "tool_calls", 1),
        (READ, None, None, 1),
        ("x", "eos_token", "stop", 0),
    ],
)
def test_how_it_ends(text, upstream, downstream, calls):
    choice = only_choice(translated(whole(text, upstream)))

    assert (choice["finish_reason"], len(called(choice))) == (downstream, calls)


def test_a_named_tool_ends_with_stop():
    asked = request(tool_choice={"type": "function", "function": {"name": "read"}})

    assert only_choice(translated(whole(READ), asked=asked))["finish_reason"] == "stop"


def test_every_choice_is_translated():
    choices = [
        {"index": i, "message": {"role": "assistant", "content": READ}, "finish_reason": "stop"}
        for i in (0, 1)
    ]

    body = orjson.loads(translated(orjson.dumps({"choices": choices})))

    assert [called(choice) for choice in body["choices"]] == [[("read", {"path": "b"})]] * 2
    assert body["choices"][0]["message"]["tool_calls"] != body["choices"][1]["message"]["tool_calls"]


def test_logprobs_go_with_the_tokens_they_stood_for():
    body = orjson.loads(whole(READ))
    body["choices"][0]["logprobs"] = {"content": []} | {"x": 1}

    assert only_choice(translated(orjson.dumps(body)))["logprobs"] is None


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
    body = whole("<think>why</think>So.", reasoning=None)

    message = only_choice(translated(body, reasoning={"emit": emit}))["message"]

    expected = {"role": "assistant", "content": content, **fields}
    assert {key: value for key, value in message.items() if value is not None} == expected


@pytest.mark.parametrize(
    ("emit", "fields"),
    [
        ("reasoning_content", {"reasoning_content": "hm"}),
        ("reasoning", {"reasoning": "hm"}),
        ("both", {"reasoning_content": "hm", "reasoning": "hm"}),
        ("strip", {}),
    ],
)
@pytest.mark.parametrize("given", ["reasoning", "reasoning_content"])
def test_the_upstreams_own_field_is_renamed(given, emit, fields):
    body = whole("</think>So.", **{given: "hm"})

    choice = only_choice(translated(body, format=None, reasoning={"emit": emit}, asked=request(tools=None)))

    assert choice["message"] == {"role": "assistant", "content": "</think>So.", **fields}


def test_a_message_of_thinking_alone_has_no_content():
    choice = only_choice(translated(whole("<think>why", "length"), reasoning={}))

    assert choice["message"] == {"role": "assistant", "content": None, "reasoning_content": "why"}
    assert choice["finish_reason"] == "length"


def test_a_mistral_answer_has_ids_of_nine_characters():
    body = whole('[TOOL_CALLS]read[ARGS]{"path": "b"}')

    (call,) = only_choice(translated(body, format="mistral"))["message"]["tool_calls"]

    assert len(call["id"]) == 9
    assert call["id"].isalnum()


def test_counts_say_what_happened():
    plan = adapters().plan(request())

    plan.answer_json(whole(READ + READ.replace("read", "unheard_of")))

    assert plan.counts == Counts(calls=2, unknown=1)
    assert plan.format == "qwen3_xml"


class Failing:
    counts = Counts()

    def new(self, *, split):
        return self

    def feed(self, text):
        raise RuntimeError("a secret")


def test_an_adapter_that_fails_leaves_the_choice_as_it_was(caplog):
    answer = ChatAnswer(Failing(), Emitter("keep"), format="f")

    with caplog.at_level(logging.ERROR):
        assert answer.translate(whole(READ)) == whole(READ)

    assert answer.counts.failures == 1
    assert "secret" not in caplog.text
    assert caplog.records[0].error.startswith("RuntimeError in feed")


FORMATS = ["qwen3_xml", "glm_xml", "hermes", "minimax_m2", "anthropic_xml", "kimi_k2", "deepseek_v31"]
MARKS = [
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "\n",
    " ",
    "<",
    "{",
    "read",
    "text",
    READ,
    HALF,
]


@given(
    st.lists(st.sampled_from(MARKS), max_size=8),
    st.sampled_from(FORMATS),
    st.sampled_from(["stop", "length"]),
)
def test_a_stream_and_a_whole_answer_agree(parts, format, finish):
    text = "".join(parts)
    options = {"format": format, "reasoning": {}}

    choice = only_choice(translated(whole(text, finish), **options))
    streamed = seen(fed(adapters(**options).plan(request()).answer_stream(), stream(*text, finish=finish)))

    message = choice["message"]
    assert (message["content"] or "") == streamed.content
    assert (message.get("reasoning_content") or "") == streamed.reasoning
    assert choice["finish_reason"] == streamed.finish
    arguments = [arguments for _, arguments, _ in streamed.calls]
    complete = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    assert complete == arguments[: len(complete)]
    assert len(complete) == len(arguments) or finish == "length"


def test_tools_of_one_request_do_not_leak_into_the_next():
    model = adapters("anthropic_xml")
    text = '<invoke name="other"></invoke>'

    known = model.plan(request(tools=[tool("other")])).answer_json(whole(text))
    unknown = model.plan(request(tools=TOOLS)).answer_json(whole(text))

    assert called(only_choice(known)) == [("other", {})]
    assert unknown == whole(text)
