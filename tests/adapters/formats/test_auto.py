import pytest
from kit.scans import TOOLS, Answer, call, same_however_cut

from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls

CALLS = [Call("x", "read", {"path": "a"}), Call("y", "now", {})]
READ = call("read", '{"path": "a"}')


@pytest.mark.parametrize("format", KINDS["auto"].also, ids=lambda format: format.name)
def test_the_format_is_known_from_the_first_call(format: object) -> None:
    written = render_calls(KINDS[format.name], CALLS)  # type: ignore[attr-defined]  # ids need the object

    answer = same_however_cut("auto", f"I will. {written}")

    assert answer.content.strip() == "I will."
    assert [(c.name, c.arguments.replace(" ", "")) for c in answer.calls] == [
        ("read", '{"path":"a"}'),
        ("now", "{}"),
    ]


def test_json_in_the_wrap_of_qwen_is_hermes() -> None:
    text = '<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>'

    assert same_however_cut("auto", text) == Answer("", "", [READ])


def test_after_the_first_call_other_formats_are_text() -> None:
    text = "<tool_call>now</tool_call>[TOOL_CALLS]now[ARGS]{}"

    assert same_however_cut("auto", text) == Answer("[TOOL_CALLS]now[ARGS]{}", "", [call("now")])


@pytest.mark.parametrize(
    "text", ['{"name": "now", "arguments": {}}', "[now()]", "Use <tool_call> or [TOOL_CALLS]."]
)
def test_what_only_looks_like_a_call_is_text(text: str) -> None:
    assert same_however_cut("auto", text) == Answer(text)


def test_a_tool_that_claudes_grammar_does_not_know_is_text() -> None:
    text = '<invoke name="rm"></invoke>'

    assert not any(tool["function"]["name"] == "rm" for tool in TOOLS)
    assert same_however_cut("auto", text) == Answer(text)
