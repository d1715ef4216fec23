import copy

import pytest
from kit.chat import TOOLS, adapters, fed, request, seen, stream, tool

from proxy.adapters.base import Counts
from proxy.errors import BadRequest

NAMED = {"type": "function", "function": {"name": "read"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}
HISTORY = [
    {"role": "user", "content": "Read a"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "A"},
]


def sent(body, **options):
    """What the upstream gets; the request itself must not change."""
    before = copy.deepcopy(body)
    plan = adapters(**options).plan(body)
    rewritten = plan.request(body) if plan is not None else body
    assert body == before
    return rewritten


# nothing to do


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (request(tools=None), {}),
        (request(tools=[]), {}),
        (request(tools=[], tool_choice="auto"), {}),
        (request(tool_choice="none"), {}),
        (request(tool_choice="none"), {"mode": "prompt"}),
        (request(tools=None), {"mode": "prompt"}),
        (request(*HISTORY, tools=None), {}),
        (request(tools=None), {"reasoning": {"emit": "keep"}}),
        (request(tools=None), {"format": None, "merge_system": True}),
        (request({"role": "system", "content": "x"}, tools=None), {"merge_system": True}),
        ({"model": "m", "prompt": "Hi", "tools": TOOLS}, {}),
        ({"model": "m", "messages": "Hi", "tools": TOOLS}, {}),
        (request(), {"format": None}),
    ],
)
def test_requests_that_pass_untouched(body, options):
    assert adapters(**options).plan(body) is None


def test_a_reasoning_adapter_leaves_the_request_its_bytes():
    body = request(tools=None)

    plan = adapters(None, reasoning={}).plan(body)

    assert plan.answers
    assert plan.request(body) is body
    assert plan.counts == Counts()
    assert plan.format == "think"


def test_a_request_may_change_without_its_answer():
    two = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    body = request(*two, tools=None)

    plan = adapters(None, merge_system=True).plan(body)

    assert not plan.answers
    assert plan.format == ""
    assert plan.request(body)["messages"] == [{"role": "system", "content": "a\n\nb"}]


# template mode


def test_the_servers_template_shows_the_tools():
    body = request(tool_choice="auto", temperature=0.5)

    assert sent(body) == body | {"tool_choice": "none"}


@pytest.mark.parametrize(
    ("format", "special"),
    [("qwen3_xml", False), ("hermes", False), ("kimi_k2", True), ("deepseek_v31", True), ("mistral", True)],
)
def test_formats_of_special_tokens_ask_for_them(format, special):
    rewritten = sent(request(), format=format)

    assert rewritten.get("skip_special_tokens") is (False if special else None)
    assert rewritten.get("spaces_between_special_tokens") is (False if special else None)


def test_a_named_tool_is_the_only_one_shown():
    rewritten = sent(request(tool_choice=NAMED))

    assert (rewritten["tools"], rewritten["tool_choice"]) == ([TOOLS[1]], "none")
    assert "must call the tool read" in rewritten["messages"][0]["content"]


def test_a_call_that_is_required_is_asked_for():
    rewritten = sent(request({"role": "system", "content": "Be brief."}, tool_choice="required"))

    (system,) = rewritten["messages"]
    assert system["content"].startswith("Be brief.\n\n")
    assert "must call at least one tool" in system["content"]
    assert rewritten["tools"] == TOOLS


def test_some_tools_may_be_allowed():
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}

    rewritten = sent(request(tool_choice=choice))

    assert rewritten["tools"] == [TOOLS[1]]
    assert "at least one tool" in rewritten["messages"][0]["content"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "unheard_of"}},
        {"type": "function", "function": {}},
        {"type": "function", "function": "read"},
        {"type": "allowed_tools", "allowed_tools": {"tools": [{"function": {"name": "x"}}]}},
        {"type": "allowed_tools", "allowed_tools": None},
        "sometimes",
        7,
    ],
)
@pytest.mark.parametrize("mode", ["template", "prompt"])
def test_a_choice_that_cannot_be_met_is_refused(choice, mode):
    with pytest.raises(BadRequest) as refused:
        adapters(mode=mode).plan(request(tool_choice=choice))

    assert refused.value.param == "tool_choice"
    assert "unheard_of" not in refused.value.message


@pytest.mark.parametrize("name", ["any", "required"])
def test_mistrals_word_for_required_is_understood(name):
    assert "at least one tool" in sent(request(tool_choice=name))["messages"][0]["content"]


def test_a_tool_without_its_envelope_can_be_named():
    bare = {"name": "bare", "parameters": {}}

    rewritten = sent(request(tools=[bare, *TOOLS], tool_choice={"name": "bare"}))

    assert rewritten["tools"] == [bare]


def test_one_call_at_most_is_the_parsers_business():
    body = request(parallel_tool_calls=False)

    assert sent(body)["messages"] == body["messages"]


def test_toolify_tells_the_model_its_mark_in_either_mode():
    for mode in ("template", "prompt"):
        rewritten = sent(request(), format="toolify_xml", mode=mode)
        system = rewritten["messages"][0]
        assert system["role"] == "system"
        assert "<Function_" in system["content"]
        assert ("tools" in rewritten) is (mode == "template")


# prompt mode


def test_tools_move_into_the_system_message():
    body = request(
        {"role": "system", "content": "Be brief."}, parallel_tool_calls=False, tool_choice="auto", seed=1
    )

    rewritten = sent(body, mode="prompt")

    assert rewritten.keys() == {"model", "messages", "stream", "seed"}
    (system,) = rewritten["messages"]
    assert system["content"].startswith("Be brief.\n\n# Tools\n\n")
    for name in ("write", "read"):
        assert f"<name>{name}</name>" in system["content"]
    assert "Call at most one tool in an answer." in system["content"]


def test_the_history_becomes_text_though_no_tool_is_offered():
    for body in (request(*HISTORY, tools=None), request(*HISTORY, tool_choice="none")):
        rewritten = sent(body, mode="prompt")
        assert [message["role"] for message in rewritten["messages"]] == ["user", "assistant", "user"]
        assert "tools" not in rewritten
        assert adapters(mode="prompt").plan(body).answers is False


def test_the_prompt_is_the_same_from_turn_to_turn():
    for format in ("toolify_xml", "qwen3_xml"):
        model = adapters(format, mode="prompt")
        first = request(HISTORY[0])
        later = request(*HISTORY)

        texts = [model.plan(body).request(body)["messages"] for body in (first, later, later)]

        assert texts[1][: len(texts[0])] == texts[0]
        assert texts[1] == texts[2]


def test_an_unknown_models_calls_are_asked_for_and_found():
    model = adapters("auto", mode="prompt")
    body = request()
    plan = model.plan(body)

    assert "<function=TOOL_NAME>" in plan.request(body)["messages"][0]["content"]


# thinking that comes back

THOUGHT = {"role": "assistant", "content": "Said", "reasoning_content": "Thought"}


def echoed(body=None, **options):
    message = dict(THOUGHT) if body is None else body
    (rewritten,) = [
        message
        for message in sent(request({"role": "user", "content": "x"}, message), **options)["messages"]
        if message["role"] == "assistant"
    ]
    return rewritten


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, THOUGHT),
        ({"reasoning": {}}, THOUGHT),
        (
            {"reasoning": {"history": "reasoning"}},
            {"role": "assistant", "content": "Said", "reasoning": "Thought"},
        ),
        ({"reasoning": {"history": "strip"}}, {"role": "assistant", "content": "Said"}),
        (
            {"reasoning": {"history": "text"}},
            {"role": "assistant", "content": "<think>\nThought\n</think>\nSaid"},
        ),
        ({"format": "mistral", "reasoning": {}}, {"role": "assistant", "content": "Said"}),
        ({"mode": "prompt"}, {"role": "assistant", "content": "Said"}),
        ({"mode": "prompt", "reasoning": {}}, {"role": "assistant", "content": "Said"}),
        (
            {"mode": "prompt", "format": "glm_xml", "reasoning": {}},
            {"role": "assistant", "content": "<think>\nThought\n</think>\nSaid"},
        ),
        (
            {"mode": "prompt", "format": "minimax_m2"},
            {"role": "assistant", "content": "<think>\nThought\n</think>\nSaid"},
        ),
    ],
)
def test_what_becomes_of_thinking_that_is_echoed(options, expected):
    assert echoed(**options) == expected


def test_either_field_is_understood_and_one_is_sent():
    both = {"role": "assistant", "content": "Said", "reasoning": "Thought", "reasoning_content": "Thought"}
    newer = {"role": "assistant", "content": "Said", "reasoning": "Thought"}
    empty = {"role": "assistant", "content": "Said", "reasoning": None}

    assert echoed(both, reasoning={}) == THOUGHT
    assert echoed(newer, reasoning={}) == THOUGHT
    assert echoed(empty, reasoning={}) == {"role": "assistant", "content": "Said"}


def test_thinking_comes_back_in_front_of_the_calls():
    message = THOUGHT | {"tool_calls": [CALL]}

    text = echoed(message, mode="prompt", format="glm_xml")["content"]

    assert text.startswith("<think>\nThought\n</think>\nSaid\n<tool_call>read")


def test_strange_messages_pass():
    strange = ["text", None, {"role": "assistant"}, {"content": "x"}]

    rewritten = sent(request(*strange), reasoning={})

    assert rewritten["messages"] == strange
    assert adapters(None, reasoning={}).plan({"messages": None}) is None


def test_tools_that_are_not_objects_are_left_out():
    rewritten = sent(request(tools=[None, tool("read")]), mode="template")

    assert rewritten["tools"] == [tool("read")]


# where the answer begins


@pytest.mark.parametrize(
    ("format", "fields", "configured", "inside"),
    [
        ("deepseek_r1", {}, None, True),
        ("deepseek_r1", {}, False, False),
        ("think", {}, None, False),
        ("think", {}, True, True),
        ("deepseek_r1", {"chat_template_kwargs": {"enable_thinking": False}}, None, False),
        ("think", {"chat_template_kwargs": {"thinking": False}}, True, False),
        ("think", {"enable_thinking": False}, True, False),
        ("think", {"thinking": {"type": "disabled"}}, True, False),
        ("think", {"thinking": {"type": "enabled"}}, None, False),
        ("think", {"thinking": {"type": ["odd"]}, "chat_template_kwargs": 7}, None, False),
        ("think", {"chat_template_kwargs": {"enable_thinking": True}}, None, False),
        ("deepseek_v3", {}, None, False),
        ("deepseek_v3", {"chat_template_kwargs": {"thinking": True}}, None, True),
        ("dsml", {"chat_template_kwargs": {"thinking": True}}, None, True),
    ],
)
def test_an_answer_begins_in_the_thinking_or_not(format, fields, configured, inside):
    model = adapters(None, reasoning={"format": format, "start_in_reasoning": configured})

    written = fed(model.plan(request(tools=None, **fields)).answer_stream(), stream("x"))

    assert (seen(written).reasoning == "x") is inside
