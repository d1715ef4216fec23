# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import Answer, Called, call, same_however_cut

TRIGGER = "<Function_Ab1c_Start/>"


def block(*calls: str) -> str:
    inner = "\n".join(f"<function_call>\n{each}\n</function_call>" for each in calls)
    return f"{TRIGGER}\n<function_calls>\n{inner}\n</function_calls>"


CALLS = [
    (block("<tool>now</tool>"), "", [call("now")]),
    (block("<tool>now</tool>\n<args_json></args_json>"), "", [call("now")]),
    (block("<tool>now</tool>\n<args_json><![CDATA[]]></args_json>"), "", [call("now")]),
    (
        block('<tool>read</tool>\n<args_json><![CDATA[{"path": "a"}]]></args_json>', "<tool>now</tool>"),
        "",
        [call("read", '{"path": "a"}'), call("now")],
    ),
    (block('<tool>read</tool>\n<args_json>{"path": "a"}</args_json>'), "", [call("read", '{"path": "a"}')]),
    (
        "Thus.\n" + block('<tool>read</tool>\n<args_json><![CDATA[\n```json\n{"path": "a"}\n```\n]]></args_json>'),
        "Thus.\n",
        [call("read", '{"path": "a"}')],
    ),
    (
        block('<tool>read</tool>\n<args_json>```json\n{"path": "a"}\n```</args_json>') + "\nmore",
        "\nmore",
        [call("read", '{"path": "a"}')],
    ),
    # What would end the block, the section or the JSON, inside a string.
    (
        block('<tool>read</tool>\n<args_json><![CDATA[{"path": "a </function_calls> ]]> b ]]]]><![CDATA[> c ]]]] d"}]]></args_json>'),
        "",
        [call("read", '{"path": "a </function_calls> ]]> b ]]> c ]]]] d"}')],
    ),
    (
        block('<tool>write</tool>\n<args_json><![CDATA[{"tags": [[["x"]]]}]]></args_json>'),
        "",
        [call("write", '{"tags": [[["x"]]]}')],
    ),
    # One element for each argument.
    (
        block("<tool>write</tool>\n<args>\n<path>a <b>c</b> </path> d</path>\n<line>5</line>\n</args>"),
        "",
        [call("write", '{"path": "a <b>c</b> </path> d", "line": 5}')],
    ),
    (block("<tool>now</tool>\n<args></args>"), "", [call("now")]),
    # Without the trigger, or in the thinking, it is text.
    (block("<tool>now</tool>").removeprefix(TRIGGER), block("<tool>now</tool>").removeprefix(TRIGGER), []),
    (f"<think>{block('<tool>now</tool>')}</think>", f"<think>{block('<tool>now</tool>')}</think>", []),
    (f"{TRIGGER} alone", f"{TRIGGER} alone", []),
    (TRIGGER[:9], TRIGGER[:9], []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), CALLS)
def test_calls_and_content_are_told_apart(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("toolify_xml", text, trigger=TRIGGER) == Answer(content, "", calls)


def test_calls_before_a_cut_are_kept() -> None:
    text = block('<tool>read</tool>\n<args_json>{"path": "a"}</args_json>', "<tool>now</tool>\n<args_json>{")

    answer = same_however_cut(
        "toolify_xml", text.rsplit("\n</function_call>", 1)[0], trigger=TRIGGER, truncated=True
    )

    assert answer.calls == [call("read", '{"path": "a"}'), Called("now", "{")]


def test_what_may_be_half_a_split_is_not_lost() -> None:
    text = block('<tool>read</tool>\n<args_json><![CDATA[{"path": "a]]]').split("\n</function_call>")[0]

    assert same_however_cut("toolify_xml", text, trigger=TRIGGER).calls == [call("read", '{"path": "a]]]"}')]


def test_without_a_trigger_to_ask_for_the_wrap_is_enough() -> None:
    text = block("<tool>now</tool>").removeprefix(TRIGGER)

    assert same_however_cut("toolify_xml", text).calls == [call("now")]
