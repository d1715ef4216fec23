# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import TOOLS, Answer, Called, call, cuts, run, same_however_cut, scanner

from proxy.adapters.reasoning import KINDS as FAMILIES
from proxy.adapters.reasoning import ReasoningSplitter
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.tool_calls.formats import KINDS

READ = '{"name": "read", "arguments": {"path": "a"}}'
NOW = '{"name": "now", "arguments": {}}'
READ_CALL = call("read", '{"path": "a"}')
BOTH = [READ_CALL, call("now")]

HERMES = [
    (f"<tool_call>\n{READ}\n</tool_call>", "", [READ_CALL]),
    (f"<tool_call>{READ}</tool_call>\n<tool_call>{NOW}</tool_call>\nDone.", "\nDone.", BOTH),
    (f"<tool_call>{READ}", "", [READ_CALL]),
    (f"<tool_call>[{READ}, {NOW}]</tool_call>", "", BOTH),
    (f"<tool_call>\n{READ}}}\n</tool_call> ok", " ok", [READ_CALL]),
    ('<tool_call>{"arguments": {"path": "a"}, "name": "read"}</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"name": "read", "parameters": {"path": "a"}}</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"name": "read", "arguments": "{\\"path\\": \\"a\\"}"}</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"arguments": "{\\"path\\": \\"a\\"}", "name": "read"}</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"name": "now"}</tool_call>', "", [call("now")]),
    ('<tool_call>{"name": "now", "arguments": null, "id": 5, "x": [1, {"y": "}"}], "z": "s"}</tool_call>', "", [call("now")]),
    ('<tool_call>{"name": "now", "arguments": {}, "x": {"name": "read"}}</tool_call>', "", [call("now")]),
    ('<tool_call>{"type": "function", "name": "now", "arguments": {}, "arguments": {"x": 1}}</tool_call>', "", [call("now")]),
    # Marks inside strings are strings.
    (
        '<tool_call>{"name": "read", "arguments": {"path": "</tool_call> \\" <tool_call>{ \\\\"}}</tool_call>',
        "",
        [call("read", '{"path": "</tool_call> \\" <tool_call>{ \\\\"}')],
    ),
    # A brace that the model forgot: of the object, of the arguments.
    ('<tool_call>{"name": "read", "arguments": {"path": "a"}\n</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"name": "write", "arguments": {"tags": ["a"]</tool_call>', "", [call("write", '{"tags": ["a"]}')]),
    # What is no call goes back as it came.
    ("<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
    ("<tool_call>{ }</tool_call>", "<tool_call>{ }</tool_call>", []),
    ('<tool_call>{"name": "now", "arguments": [1]}', '<tool_call>{"name": "now", "arguments": [1]}', []),
    ('<tool_call>{"name": "now", "arguments": nil}', '<tool_call>{"name": "now", "arguments": nil}', []),
    ("<tool_call>{\"name\": \"now\", \"arguments\":  {'a': 1}}", "<tool_call>{\"name\": \"now\", \"arguments\":  {'a': 1}}", []),
    # JSON that is nearly right.
    ('<tool_call>{"name": "read", "arguments": {"path": "a",}}</tool_call>', "", [READ_CALL]),
    ('<tool_call>{"name": "write", "arguments": {"force": True, "note": }}</tool_call>', "", [call("write", '{"force": true, "note": null}')]),
    ('<tool_call>{"name": "read", "arguments": {"path": "\\d"}}</tool_call>', "", [call("read", '{"path": "\\\\d"}')]),
    # What cannot be taken back is closed, and what fits nowhere is text.
    ('<tool_call>{"name": "read", "arguments": {"path": "a", "b": word}} x', ', "b": word}} x', [READ_CALL]),
    ('<tool_call>{"name": "read", "arguments": {"path": "a", "b": </tool_call>x', "x", [READ_CALL]),
    ('<tool_call>\n{"path": "a"}\n</tool_call>', '<tool_call>\n{"path": "a"}\n</tool_call>', []),
    ('<tool_call>{"name": 5, "arguments": {}}', '<tool_call>{"name": 5, "arguments": {}}', []),
    ('<tool_call>{"name": "now" "x"}', '<tool_call>{"name": "now" "x"}', []),
    ('<tool_call>{"arguments": "text", "name": "now"}', '<tool_call>{"arguments": "text", "name": "now"}', []),
    ('<tool_call>{"arguments": {"a"}, "name": "now"}', '<tool_call>{"arguments": {"a"}, "name": "now"}', []),
    ('<tool_call>{"name": "read", "argu', '<tool_call>{"name": "read", "argu', []),
    ('<tool_call>{"x": [', '<tool_call>{"x": [', []),
    ("The tag <tool_call> opens it", "The tag <tool_call> opens it", []),
    # A call behind something that was none.
    (f"<tool_call>{{x}} <tool_call>{NOW}</tool_call>", "<tool_call>{x} ", [call("now")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), HERMES)
def test_hermes(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("hermes", text) == Answer(content, "", calls)


@pytest.mark.parametrize(
    ("text", "truncated", "calls"),
    [
        ('<tool_call>{"name": "read", "arguments": {"path": "a', True, [Called("read", '{"path": "a')]),
        ('<tool_call>{"name": "read", "arguments": {"path": "a', False, [READ_CALL]),
        ('<tool_call>{"name": "read", "arguments": {"path": "a"}', True, [READ_CALL]),
    ],
)
def test_a_cut_object(text: str, truncated: bool, calls: list[Called]) -> None:
    assert same_however_cut("hermes", text, truncated=truncated).calls == calls


def test_arguments_stream_as_they_are_written() -> None:
    scan = scanner("hermes", TOOLS)
    scan.feed('<tool_call>{"name": "read", "arguments": {"pa')

    said = [event.text for event in scan.feed('th": "a.') if hasattr(event, "text")]

    assert said == ['"path": "a.']


def test_arguments_before_the_name_wait_so_long_and_go_back() -> None:
    text = '<tool_call>{"arguments": {"x": "' + "x" * (1024 * 1024) + '"}, "name": "now"}</tool_call>'

    assert run(scanner("hermes"), [text[:700_000], text[700_000:]]) == Answer(text)


BARE = [
    (READ.replace("arguments", "parameters"), "", [READ_CALL]),
    (f"<|python_tag|>{READ}; {NOW}<|eom_id|>", "", BOTH),
    (f"{READ};{NOW}", "", BOTH),
    (f"So: {READ}", "So: ", [READ_CALL]),
    ('{"type": "function", "name": "now", "parameters": {}}', "", [call("now")]),
    ('{"name": "Ann", "arguments": {"path": "a"}}', '{"name": "Ann", "arguments": {"path": "a"}}', []),
    ('{"name": "now"}', '{"name": "now"}', []),
    ('{"answer": 42, "name": "now"}', '{"answer": 42, "name": "now"}', []),
    ("a {b} [c] {", "a {b} [c] {", []),
    # Behind the mark all are calls, not only the first.
    (
        '<|python_tag|>{"name": "rm", "parameters": {}}; {"name": "cp", "parameters": {}}',
        "",
        [call("rm"), call("cp")],
    ),
    # A call that was begun and then written again.
    (f'{{"name": "read", "parameters": {{{READ}', '{"name": "read", "parameters": {', [READ_CALL]),
]


@pytest.mark.parametrize(("text", "content", "calls"), BARE)
def test_a_bare_object_is_a_call_of_a_known_tool(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("llama3_json", text) == Answer(content, "", calls)


def test_without_tools_to_compare_any_name_will_do() -> None:
    assert same_however_cut("llama3_json", READ, tools=[]).calls == [READ_CALL]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("json_bare", f"[{READ},\n {NOW}]"),
        ("json_bare", f"[{READ},\n {NOW}]".replace('"name"', '"function"')),
        ("xlam", f"```json\n[{READ}, {NOW}]\n```"),
        ("xlam", f"[TOOL_CALLS][{READ}, {NOW}]"),
        ("xlam", f"[{READ}, {NOW}]"),
        ("granite", f"<|tool_call|> [{READ}, {NOW}]"),
        ("granite", f"<tool_call>[{READ}, {NOW}]</tool_call>"),
        ("granite", f"<function_call> {READ}\n<function_call> {NOW}<|end_of_text|>"),
        ("minimax_m1", f"<tool_calls>\n{READ}\n{NOW}\n</tool_calls>"),
        ("jamba", f"<tool_calls>[{READ}, {NOW}]</tool_calls>"),
        ("hunyuan_a13b", f"<tool_calls>[{READ}, {NOW}]</tool_calls>"),
        ("phi4mini", f"functools[{READ}, {NOW}]"),
        ("firefunction", f" functools[{READ}, {NOW}]"),
        ("apriel", f"<tool_calls>[{READ}, {NOW}]</tool_calls>"),
        ("nemotron_v2_json", f"<TOOLCALL>[{READ}, {NOW}]</TOOLCALL>"),
        ("gigachat3", f"<|function_call|>{READ}<|function_call|>{NOW}</s>"),
        ("gigachat3", f"<|message_sep|>\n\nfunction call<|role_sep|>\n{READ}function call<|role_sep|>\n{NOW}</s>"),
        ("gigachat3", f"function call{READ} function call {NOW}"),
        ("apertus", '<|tools_prefix|>[{"read": {"path": "a"}}, {"now": {}}]<|tools_suffix|>'),
        ("inkling", f"<|content_invoke_tool_json|>{READ}<|end_message|><|message_model|><|content_invoke_tool_json|>{NOW}<|end_message|>".replace("arguments", "args")),
        (
            "cohere",
            '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "read", "parameters": {"path": "a"}},\n'
            '{"tool_call_id": "1", "tool_name": "now", "parameters": {}}]<|END_ACTION|>',
        ),
        ("cohere", f"<|START_ACTION|>[{READ}, {NOW}]<|END_ACTION|>"),
        ("longcat", f"<longcat_tool_call>{READ}</longcat_tool_call>\n<longcat_tool_call>{NOW}</longcat_tool_call>"),
        ("ernie45", f"<tool_call>\n{READ}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>"),
        ("reka_edge", f"<tool_call>\n{READ}</tool_call><tool_call>\n{NOW}</tool_call>"),
    ],
)  # fmt: skip
def test_relatives_differ_in_what_stands_around(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", BOTH)


@pytest.mark.parametrize("name", ["hunyuan_a13b", "minimax_m1"])
def test_calls_in_the_thinking_of_some_models_are_none(name: str) -> None:
    family = FAMILIES[KINDS[name].reasoning or "think"]
    thought = f"<tool_calls>\n{READ}\n</tool_calls>"

    for pieces in cuts(f"<think>{thought}</think><tool_calls>\n{NOW}\n</tool_calls>"):
        splitter = ReasoningSplitter(family, start_in_reasoning=False)
        answer = run(AnswerScanner(splitter, scanner(name, TOOLS)), pieces)

        assert answer == Answer("", thought, [call("now")])


def test_internlm_writes_one_call() -> None:
    text = f"Well.<|action_start|><|plugin|>{READ}<|action_end|>"

    assert same_however_cut("internlm2", text) == Answer("Well.", "", [READ_CALL])


def test_a_tool_that_apertus_does_not_know_stays_text_if_asked() -> None:
    text = '<|tools_prefix|>[{"rm": {}}]'

    assert same_however_cut("apertus", text, unknown_tools="text") == Answer(text)


@pytest.mark.parametrize("name", ["minimax_m1", "hunyuan_a13b"])
def test_markup_in_the_thinking_is_no_call(name: str) -> None:
    text = f"<think>maybe <tool_calls>{NOW}</tool_calls></think>"

    assert same_however_cut(name, f"{text}<tool_calls>{READ}</tool_calls>") == Answer(text, "", [READ_CALL])
    assert same_however_cut(name, text.removesuffix("</think>")) == Answer(text.removesuffix("</think>"))
