# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import Answer, Called, call, run, same_however_cut, scanner

READ_CALL = call("read", '{"path": "a"}')
BOTH = [READ_CALL, call("now")]

PYTHONIC = [
    ('[read(path="a"), now()]', "", BOTH),
    ("<|python_start|>[read(path='a'), now()]<|python_end|>", "", BOTH),
    ("<|python_tag|>[now()]<|eom_id|>", "", [call("now")]),
    ('Here: [read(path="a")] and more', "Here:  and more", [READ_CALL]),
    (
        '[write(path="a)]\\"b", tags=["x", (1, 2)], meta={"k": None, \'l\': -1.5}, force=True)]',
        "",
        [call("write", '{"path": "a)]\\"b", "tags": ["x", [1, 2]], "meta": {"k": null, "l": -1.5}, "force": true}')],
    ),
    ("[read(path='''it's\n\"a\"''')]", "", [call("read", '{"path": "it\'s\\n\\"a\\""}')]),
    ("[read(path='', )]", "", [call("read", '{"path": ""}')]),
    ("[ now ( ) ]", "", [call("now")]),
    ("[now()", "", [call("now")]),
    ("[now(), ", ", ", [call("now")]),
    ("[now(), ]", "", [call("now")]),
    ("[unknown(x=1)]", "", [call("unknown", '{"x": 1}')]),
    # No literals, no calls.
    ("[read(path=variable)]", "[read(path=variable)]", []),
    ('[read("a")]', '[read("a")]', []),
    ("[read(path='a' b='c')]", "[read(path='a' b='c')]", []),
    ("[read(path='a)]", "[read(path='a)]", []),
    ("[read(path=])]", "[read(path=])]", []),
    ("[f(x) for x in y]", "[f(x) for x in y]", []),
    ("[now() for x in y]", "[now() for x in y]", []),
    ("see [unknown(x=1)] and [1] or [a](b)", "see [unknown(x=1)] and [1] or [a](b)", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), PYTHONIC)
def test_pythonic(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("pythonic", text) == Answer(content, "", calls)
    assert same_however_cut("llama4_pythonic", text) == Answer(content, "", calls)


def test_what_follows_the_first_call_may_still_be_text() -> None:
    assert same_however_cut("pythonic", "[now(), read(path=x)]") == Answer(
        ", read(path=x)]", "", [call("now")]
    )


@pytest.mark.parametrize(
    ("name", "text", "content", "calls"),
    [
        ("olmo3", '<function_calls>\nread(path="a")\nnow()\n</function_calls>', "", BOTH),
        ("olmo3", "<function_calls>write(force=true, note=null)", "", [call("write", '{"force": true, "note": null}')]),
        ("olmo3", "<function_calls> are calls", "<function_calls> are calls", []),
        ("lfm2", '<|tool_call_start|>[read(path="a"), now()]<|tool_call_end|>ok', "ok", BOTH),
        ("lfm2", '<|tool_call_start|>[{"name": "read", "arguments": {"path": "a"}}, {"name": "now"}]<|tool_call_end|>', "", BOTH),
        ("lfm2", "[now()]", "[now()]", []),
    ],
)  # fmt: skip
def test_relatives_differ_in_what_stands_around(
    name: str, text: str, content: str, calls: list[Called]
) -> None:
    assert same_however_cut(name, text) == Answer(content, "", calls)


def test_a_tool_that_is_not_known_stays_text_if_asked() -> None:
    text = "<function_calls>rm(x=1)</function_calls>"

    assert same_however_cut("olmo3", text, unknown_tools="text") == Answer(text)


def test_a_call_too_long_to_hold_goes_back() -> None:
    text = '<function_calls>read(path="' + "x" * (1024 * 1024) + '")'

    assert run(scanner("olmo3"), [text[:700_000], text[700_000:]]) == Answer(text)


Q = '<|"|>'
GEMMA = [
    ("<|tool_call>call:now{}<tool_call|>", "", [call("now")]),
    (
        f"Ok. <|tool_call>call:read{{path:{Q}a{Q}}}<tool_call|><|tool_call>call:now{{}}<tool_call|>",
        "Ok. ",
        BOTH,
    ),
    (
        f'<|tool_call>call:write{{path:{Q}a "b" {{c}}\n{Q},line:5,force:true,note:null,tags:[{Q}x,]{Q},2],'
        f"meta:{{k:{Q}v}}{Q},l:{{}}}}}}<tool_call|>",
        "",
        [
            call(
                "write",
                '{"path": "a \\"b\\" {c}\\n", "line": 5, "force": true, "note": null, "tags": ["x,]", 2], '
                '"meta": {"k": "v}", "l": {}}}',
            )
        ],
    ),
    (f'<|tool_call>call:read{{{Q}path{Q} : "a"}}', "", [READ_CALL]),
    ("<|tool_call>call:read{path:a b}<tool_call|>", "", [call("read", '{"path": "a b"}')]),
    (
        "<|tool_call>call:write{meta:[1] 2,\n line:5\n}<tool_call|>",
        "",
        [call("write", '{"meta": "[1] 2", "line": 5}')],
    ),
    ("<|tool_call>call:write{meta:{x y}}<tool_call|>", "", [call("write", '{"meta": "{x y}"}')]),
    ("<|tool_call>call:write{line:5,<tool_call|>", "", [call("write", '{"line": 5}')]),
    (f"<|tool_call>call:read{{path:{Q}a", "", [READ_CALL]),
    ("<|tool_call>call:write{line:5", "", [call("write", '{"line": 5}')]),
    ("<|tool_call>call:write{line", "", [call("write")]),
    ("<|tool_call>call: prose", "<|tool_call>call: prose", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), GEMMA)
def test_gemma(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("gemma4", text) == Answer(content, "", calls)


def test_gemma_strings_stream_while_they_are_open() -> None:
    scan = scanner("gemma4")
    scan.feed(f"<|tool_call>call:read{{path:{Q}a")

    said = [event.text for event in scan.feed("bc<|") if hasattr(event, "text")]

    assert said == ["bc"]


def test_a_cut_call_keeps_what_was_streamed() -> None:
    text = f"<|tool_call>call:read{{path:{Q}a"

    assert same_however_cut("gemma4", text, truncated=True).calls == [Called("read", '{"path": "a')]


def test_a_list_too_long_to_hold_goes_out_as_a_string() -> None:
    text = "<|tool_call>call:write{tags:[" + "1," * (1024 * 512) + "1"

    answer = run(scanner("gemma4"), [text])

    assert answer.calls[0].arguments.startswith('{"tags": "[1,1,1')


def test_functiongemma_has_marks_of_its_own() -> None:
    text = (
        "<start_function_call>call:read{path:<escape>a<escape>}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>"
    )

    assert same_however_cut("functiongemma", text) == Answer("", "", BOTH)
