# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import Answer, Called, call, same_however_cut, scanner

READ_CALL = call("read", '{"path": "a"}')
BOTH = [READ_CALL, call("now")]


def kimi(*calls: str, section: str = "tool_calls") -> str:
    return f"<|{section}_section_begin|>{''.join(calls)}<|{section}_section_end|>"


def kimi_call(head: str, arguments: str = "{}") -> str:
    return f"<|tool_call_begin|>{head}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


READ = kimi_call("functions.read:0", '{"path": "a"}')
NOW = kimi_call("functions.now:1")
KIMI = [
    (kimi(READ, NOW), "", BOTH),
    (kimi(READ, NOW, section="tool_call"), "", BOTH),
    (f"Well. {READ}\n{NOW}<|im_end|>", "Well. ", BOTH),
    (kimi(kimi_call(" functions.read:0 ", ' {"path": "a"} '), " ", kimi_call("now:1")), "", BOTH),
    (kimi(kimi_call("now")), "", [call("now")]),
    (kimi(kimi_call("functions.get-a.b:0")), "", [call("get-a.b")]),
    (kimi(kimi_call("functions.now:0", "")), "", [call("now")]),
    (kimi(READ) + " text behind", " text behind", [READ_CALL]),
    (kimi(), "", []),
    # A brace that the model forgot.
    (kimi(kimi_call("functions.read:0", '{"path": "a"'), NOW), "", BOTH),
    (kimi(kimi_call("functions.read:0", '{"path": "<|tool_call_end|>"}')), "", [call("read", '{"path": "<|tool_call_end|>"}')]),
    ("<|tool_calls_section_begin|> prose", "<|tool_calls_section_begin|> prose", []),
    # What was no call keeps its end, what was one does not.
    (kimi(kimi_call("functions.now:0", "no JSON")), kimi(kimi_call("functions.now:0", "no JSON")), []),
    (f"{READ} text <|tool_calls_section_end|>", " text ", [READ_CALL]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), KIMI)
def test_kimi(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("kimi_k2", text) == Answer(content, "", calls)


def test_kimi_keeps_its_own_ids() -> None:
    answer = same_however_cut("kimi_k2", kimi(READ, kimi_call("now")))

    assert [c.id for c in answer.calls] == ["functions.read:0", "call_0"]


def test_an_id_that_the_model_gave_before_is_not_given_again() -> None:
    answer = same_however_cut("kimi_k2", kimi(READ, READ, NOW))

    assert [c.id for c in answer.calls] == ["functions.read:0", "call_0", "functions.now:1"]


def k3(name: str, inner: str) -> str:
    return f'<|open|>call tool="{name}" index="1"<|sep|>{inner}<|close|>call<|sep|>'


def k3_argument(key: str, kind: str, value: str) -> str:
    return f'<|open|>argument key="{key}" type="{kind}"<|sep|>{value}<|close|>argument<|sep|>'


K3 = [
    (k3("read", k3_argument("path", "string", "a")) + k3("now", ""), BOTH),
    (k3("write", k3_argument("path", "string", "5") + k3_argument("line", "number", "5")), [call("write", '{"path": "5", "line": 5}')]),
    (k3("write", k3_argument("tags", "array", '["<|sep|>"]')), [call("write", '{"tags": ["<|sep|>"]}')]),
    (k3("read", '<|open|>json type="object"<|sep|>{"path": "a"}<|close|>json<|sep|>'), [READ_CALL]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "calls"), K3)
def test_kimi_k3(text: str, calls: list[Called]) -> None:
    text = (
        f"<|open|>response<|sep|>Ok.<|close|>response<|sep|><|open|>tools<|sep|>{text}<|close|>tools<|sep|>"
    )

    answer = same_however_cut("kimi_k3", text + "<|close|>message<|sep|><|end_of_msg|>")

    assert answer == Answer("Ok.", "", calls)


def deepseek(*calls: str, mark: str = "▁") -> str:
    return f"<｜tool{mark}calls{mark}begin｜>{''.join(calls)}<｜tool{mark}calls{mark}end｜>"


def v31(name: str, arguments: str = "{}", mark: str = "▁") -> str:
    return f"<｜tool{mark}call{mark}begin｜>{name}<｜tool{mark}sep｜>{arguments}<｜tool{mark}call{mark}end｜>"


def v3(name: str, arguments: str = "{}", mark: str = "▁") -> str:
    return v31("function", f"{name}\n```json\n{arguments}\n```", mark)


@pytest.mark.parametrize("mark", ["▁", "_", " "])
@pytest.mark.parametrize(("name", "write"), [("deepseek_v31", v31), ("deepseek_v3", v3)])
def test_deepseek_in_every_spelling(name: str, write: object, mark: str) -> None:
    assert callable(write)
    calls = write("read", '{"path": "a"}', mark), write("now", "{}", mark)

    assert same_however_cut(name, "Hm." + deepseek(*calls, mark=mark)) == Answer("Hm.", "", BOTH)
    assert same_however_cut(name, "\n".join(calls)) == Answer("", "", BOTH)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deepseek_v3", '<｜tool▁calls▁begin｜>function<｜tool▁sep｜>read\n```json\n{"path": "a"}\n```<｜tool▁call▁end｜>'),
        ("deepseek_v3", '<｜tool▁calls｜>function<｜tool▁sep｜>read\n```json\n{"path": "a"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'),
        ("deepseek_v31", '<｜tool▁calls▁begin｜>read<｜tool▁sep｜>{"path": "a"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'),
        # A brace that the model forgot before the fence.
        ("deepseek_v3", deepseek(v3("read", '{"path": "a"'))),
        # Either one in the other's way.
        ("deepseek_v3", deepseek(v31("read", '{"path": "a"}'))),
        ("deepseek_v31", deepseek(v3("read", '{"path": "a"}'))),
    ],
)  # fmt: skip
def test_what_deepseeks_models_make_of_their_formats(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", [READ_CALL])


def test_a_fence_in_an_argument_does_not_end_it() -> None:
    arguments = '{"path": "```\\n``` <｜tool▁call▁end｜>"}'

    assert same_however_cut("deepseek_v3", deepseek(v3("read", arguments))).calls == [call("read", arguments)]


MISTRAL = [
    ('[TOOL_CALLS]read[ARGS]{"path": "a"}[TOOL_CALLS]now[ARGS]{}', "", BOTH),
    ('[TOOL_CALLS]read{"path": "a"}[TOOL_CALLS]now{}</s>', "", BOTH),
    (
        '[TOOL_CALLS] [{"name": "read", "arguments": {"path": "a"}}, {"name": "now", "arguments": {}}]',
        "",
        BOTH,
    ),
    ('[TOOL_CALLS]{"name": "read", "arguments": {"path": "a"}} done', " done", [READ_CALL]),
    (
        '[TOOL_CALLS] [{"name": "rm", "arguments": {}}, {"name": "cp", "arguments": {}}]',
        "",
        [call("rm"), call("cp")],
    ),
    ("[TOOL_CALLS]now[ARGS]{'a': 1}", "[TOOL_CALLS]now[ARGS]{'a': 1}", []),
    ('Then [TOOL_CALLS] read [ARGS] {"path": "a"}', "Then ", [READ_CALL]),
    ('[TOOL_CALLS]read[ARGS]{"path": "a"}\nThat was it.', "\nThat was it.", [READ_CALL]),
    ("[TOOL_CALLS] means calls, and [1] is a note", "[TOOL_CALLS] means calls, and [1] is a note", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), MISTRAL)
def test_mistral(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("mistral", text) == Answer(content, "", calls)


def test_mistral_keeps_its_own_ids() -> None:
    answer = same_however_cut("mistral", "[TOOL_CALLS]now[CALL_ID]abcdef123[ARGS]{}[TOOL_CALLS]now[ARGS]{}")

    assert [c.id for c in answer.calls] == ["abcdef123", "call_0"]


PLAMO = "<|plamo:{}_tool_{}:plamo|>"


def plamo(name: str, arguments: str) -> str:
    return (
        f"<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>{name}<|plamo:end_tool_name:plamo|>"
        f"<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>{arguments}"
        "<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "plamo3",
            "<|plamo:begin_tool_requests:plamo|>"
            + plamo("read", '{"path": "a"}')
            + plamo("now", "{}")
            + "<|plamo:end_tool_requests:plamo|>",
        ),
        ("functionary_v31", '<function=read>{"path": "a"}</function>\n<function=now>{}</function>'),
        ("functionary_v32", '>>>all\n>>>read\n{"path": "a"}>>>now\n{}'),
        (
            "harmony",
            "<|channel|>commentary to=functions.read <|constrain|>json<|message|>{\"path\": \"a\"}<|call|>"
            "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
        ),
        (
            "harmony",
            ' to=functions.read<|channel|>analysis<|message|>{"path": "a"}<|call|>'
            "<|channel|>analysis to=functions.now<|message|>{}",
        ),
    ],
)  # fmt: skip
def test_other_formats_with_a_head_and_json(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", BOTH)


def test_the_final_channel_is_content() -> None:
    text = "<|channel|>final<|message|>Hello.<|return|>"

    assert same_however_cut("harmony", text) == Answer("Hello.")


ENDINGS = [
    ('{"path": "a"}', False, call("read", '{"path": "a"}')),
    ('{"path": "a', False, call("read", '{"path": "a"}')),
    ('{"path": "a', True, Called("read", '{"path": "a')),
    ('"{\\"path\\": \\"a\\"}"', False, READ_CALL),
    ('"{\\"path\\": ', True, Called("read")),
    ('"text"', False, call("read")),
    ('{"path": ', False, call("read")),
    ('{"path": "a", "li', False, READ_CALL),
    ('{"path": "a\nb"}', False, call("read", '{"path": "a\\nb"}')),
]


@pytest.mark.parametrize(("arguments", "truncated", "expected"), ENDINGS)
def test_arguments_that_end_with_the_text(arguments: str, truncated: bool, expected: Called) -> None:
    text = f"[TOOL_CALLS]read[ARGS]{arguments}"

    assert same_however_cut("mistral", text, truncated=truncated).calls == [expected]


def test_a_string_of_json_too_long_to_hold_passes_as_it_is() -> None:
    scan = scanner("mistral")
    text = '"' + "x" * (1024 * 1024 + 1) + '"'

    events = scan.feed("[TOOL_CALLS]read[ARGS]" + text) + scan.finish()

    assert "".join(event.text for event in events if hasattr(event, "text")) == text
