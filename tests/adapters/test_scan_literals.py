import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.tool_calls.literals import MAX_DEPTH, Dialect, Literals, NotALiteral
from proxy.adapters.tool_calls.spans import Span

BRACES = Dialect(mark='<|"|>', bare=True)


def read(text: str, dialect: Dialect = Dialect()) -> str:  # noqa: B008  # frozen and empty
    literals = Literals(text, dialect)
    value = literals.value()
    if not literals.ended():
        raise NotALiteral("more")
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"),
        ("-1_000", "-1000"),
        ("1.5e3", "1500.0"),
        ("True", "true"),
        ("null", "null"),
        ("'it\\'s'", '"it\'s"'),
        ('"a\\n\\x41\\u00e9\\U0001F600\\101\\q"', '"a\\nAé😀A\\\\q"'),
        ("'\\ud83d\\ude00'", '"😀"'),
        ("'\\U00110000'", '"\\\\U00110000"'),
        ("'a' \"b\"", '"ab"'),
        ("'''a'b\n'''", '"a\'b\\n"'),
        ('""', '""'),
        ("[1, 'a', [None,],]", '[1, "a", [null]]'),
        ("(1,)", "[1]"),
        ("(1)", "1"),
        ("()", "[]"),
        ("{'a': 1, 2: {}}", '{"a": 1, "2": {}}'),
    ],
)
def test_literals_of_python_become_json(text: str, expected: str) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f(x)",
        "name",
        "1 + 1",
        "[1",
        "[1 2]",
        "{'a' 1}",
        "{a: 1}",
        "{1}",
        "'open",
        "'''open''",
        "'open\\",
        "1e999",
        "9" * 5000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
    ],
)
def test_what_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(NotALiteral):
        read(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<|"|>a "b" {c}<|"|>', '"a \\"b\\" {c}"'),
        ('{k:<|"|>v<|"|>,n:1.5,<|"|>a b<|"|>:true}', '{"k": "v", "n": 1.5, "a b": true}'),
        ("[Paris, null, 9e999]", '["Paris", null, "9e999"]'),
        ('{"k": "v"}', '{"k": "v"}'),
        ("", '""'),
    ],
)
def test_braces_may_hold_bare_words_and_marked_strings(text: str, expected: str) -> None:
    assert read(text, BRACES) == expected


@pytest.mark.parametrize("text", ['<|"|>open', "{:1}", "{k 1}"])
def test_braces_have_limits_too(text: str) -> None:
    with pytest.raises(NotALiteral):
        read(text, BRACES)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(values)
def test_what_python_writes_is_read_as_python_reads_it(value: object) -> None:
    written = repr(value)

    assert json.loads(read(written)) == ast.literal_eval(written)


@given(values, st.sampled_from(["", ")", ", y=2)"]), st.data())
def test_the_end_of_a_span_is_the_same_however_it_is_cut(
    value: object, more: str, data: st.DataObject
) -> None:
    text = f"x={value!r}){more}"
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    span = Span(")")
    seen = tail = ""

    for piece in (text[:first], text[first:second], text[second:], ""):
        if not span.done:
            tail += piece
            at = span.read(tail, 0, not piece)
            seen += tail[:at]
            tail = tail[at:]

    assert span.done and not span.broken
    assert seen == f"x={value!r}"


def test_a_span_with_more_closing_than_opening_brackets_is_broken() -> None:
    span = Span(",")

    span.read("]", 0, False)

    assert span.done and span.broken
