# ruff: noqa: E501  # a vector reads best on one line
import pytest

from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls

READ = Call("call_1", "read", {"path": "a\n", "line": 5})
NOW = Call("call_2", "now", "{}")

WRITTEN = {
    "qwen3_xml": "<tool_call>\n<function=read>\n<parameter=path>\na\n\n</parameter>\n<parameter=line>\n5\n</parameter>\n"
    "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    "glm_xml": "<tool_call>read\n<arg_key>path</arg_key>\n<arg_value>a\n</arg_value>\n<arg_key>line</arg_key>\n"
    "<arg_value>5</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
    "minimax_m2": '<minimax:tool_call>\n<invoke name="read">\n<parameter name="path">a\n</parameter>\n'
    '<parameter name="line">5</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
    "dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="read">\n'
    '<｜DSML｜parameter name="path" string="true">a\n</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="line" string="false">5</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "hermes": '<tool_call>\n{"name": "read", "arguments": {"path":"a\\n","line":5}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "mimo_xml": "<tool_call><function=read><parameter=path>a\n</parameter><parameter=line>5</parameter></function>"
    "</tool_call><tool_call><function=now></function></tool_call>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>"
    '{"path":"a\\n","line":5}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}'
    "<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek_v3": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>read\n```json\n'
    '{"path":"a\\n","line":5}\n```<｜tool▁call▁end｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "mistral": '[TOOL_CALLS]read[ARGS]{"path":"a\\n","line":5}[TOOL_CALLS]now[ARGS]{}',
    "llama3_json": '{"name": "read", "parameters": {"path":"a\\n","line":5}}; {"name": "now", "parameters": {}}',
    "granite": '<|tool_call|>[{"name": "read", "arguments": {"path":"a\\n","line":5}}, {"name": "now", "arguments": {}}]'
    "</tool_call>",
    "apertus": '<|tools_prefix|>[{"read": {"path":"a\\n","line":5}}, {"now": {}}]<|tools_suffix|>',
    "pythonic": '[read(path="a\\n", line=5), now()]',
    "olmo3": '<function_calls>\nread(path="a\\n", line=5)\nnow()\n</function_calls>',
    "gemma4": '<|tool_call>call:read{path:<|"|>a\n<|"|>,line:5}<tool_call|><|tool_call>call:now{}<tool_call|>',
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), WRITTEN.items())
def test_calls_are_written_as_the_model_writes_them(name: str, text: str) -> None:
    assert render_calls(KINDS[name], [READ, NOW]) == text


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_calls_are_no_text(name: str) -> None:
    assert render_calls(KINDS[name], []) == ""


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_call_that_was_cut_off_is_shown_as_far_as_it_got(name: str) -> None:
    assert '{"path": "a' in render_calls(KINDS[name], [Call("x", "read", '{"path": "a')])


def test_a_block_for_toolify_begins_with_the_trigger() -> None:
    text = render_calls(KINDS["toolify_xml"], [Call("x", "read", {"path": "]]>"})], trigger="<T/>")

    assert text == (
        "<T/>\n<function_calls>\n<function_call>\n<tool>read</tool>\n"
        '<args_json><![CDATA[{"path":"]]]]><![CDATA[>"}]]></args_json>\n</function_call>\n</function_calls>'
    )


def test_other_formats_have_no_use_for_a_trigger() -> None:
    assert "<T/>" not in render_calls(KINDS["qwen3_xml"], [NOW], trigger="<T/>")


def test_auto_writes_as_the_first_format_it_knows() -> None:
    assert render_calls(KINDS["auto"], [NOW]) == render_calls(KINDS["qwen3_xml"], [NOW])


def test_a_native_id_keeps_its_number() -> None:
    assert "functions.now:7<" in render_calls(KINDS["kimi_k2"], [Call("functions.now:7", "now", {})])


def test_keys_that_are_no_words_stand_in_marks() -> None:
    text = render_calls(KINDS["gemma4"], [Call("x", "f", {"a b": {"c": None, "d": [1.5, "e"]}})])

    assert text == '<|tool_call>call:f{<|"|>a b<|"|>:{c:null,d:[1.5,<|"|>e<|"|>]}}<tool_call|>'


def test_values_in_python_are_pythons() -> None:
    text = render_calls(
        KINDS["pythonic"], [Call("x", "f", {"a": None, "b": True, "c": [{"d": "e'"}], "n": 10**30})]
    )

    assert text == '[f(a=None, b=True, c=[{"d": "e\'"}], n=1000000000000000000000000000000)]'


def test_trees_have_elements_for_keys_and_items() -> None:
    text = render_calls(KINDS["minimax_m3"], [Call("x", "f", {"a": [1, {"b": "c"}]})])

    p = "]<]minimax[>["
    inner = f"{p}<a>{p}<item>1{p}</item>{p}<item>{p}<b>c{p}</b>{p}</item>{p}</a>"
    assert text == f'{p}<tool_call>\n{p}<invoke name="f">{inner}{p}</invoke>\n{p}</tool_call>'
