import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.tool_calls.json_text import MAX_DEPTH, JsonText


def read(pieces: list[str]) -> tuple[JsonText, str, int]:
    value = JsonText()
    out: list[str] = []
    used = 0
    for piece in pieces:
        if not value.done:
            used += value.read(piece, 0, out.append)
    return value, "".join(out), used


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
containers = st.dictionaries(st.text(), values, max_size=4) | st.lists(values, max_size=4) | st.text()


@given(containers, st.booleans(), st.data())
def test_a_value_passes_as_it_is_and_its_end_is_found(
    value: object, ascii: bool, data: st.DataObject
) -> None:
    written = json.dumps(value, ensure_ascii=ascii)
    text = written + '}, "more": 1}'
    cut = data.draw(st.integers(0, len(written)))

    state, out, used = read([text[:cut], text[cut:]])

    assert state.done and not state.broken and not state.repaired
    assert out == written
    assert used == len(written)


@pytest.mark.parametrize("pieces", [['{"a": "x\ny\tz\x01"}'], list('{"a": "x\ny\tz\x01"}')])
def test_line_breaks_inside_strings_are_escaped(pieces: list[str]) -> None:
    state, out, _ = read(pieces)

    assert state.repaired
    assert json.loads(out) == {"a": "x\ny\tz\x01"}


def test_a_tag_outside_strings_ends_what_was_left_open() -> None:
    state, out, used = read(['{"a": {"b": "</t>"}</t>'])

    assert state.broken and state.done
    assert out == '{"a": {"b": "</t>"}' and used == len(out)
    assert state.closing() == "}"


def test_brackets_that_do_not_fit_are_noticed() -> None:
    state, _, _ = read(['{"a": [1}'])

    assert state.broken


def test_nesting_has_a_limit() -> None:
    state, _, _ = read(["[" * (MAX_DEPTH + 1)])

    assert state.broken and state.done


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ('{"a": "x', '"}'),
        ('{"a": ["x", {"b": 1', "}]}"),
        ('{"a": tru', None),
        ('{"a": true', "}"),
        ('{"a": 12', "}"),
        ('{"a": -', None),
        ('{"a":', None),
        ('{"a', None),
        ('{"a"', None),
        ('{"a": 1,', None),
        ('{"a": "x\\', None),
        ("{", "}"),
        ('["a", "b', '"]'),
        ("[", "]"),
        ('{"a": {}', "}"),
    ],
)
def test_a_cut_value_is_closed_where_that_is_simple(text: str, closing: str | None) -> None:
    for pieces in ([text], list(text)):
        state, out, _ = read(pieces)

        assert state.closing() == closing
        if closing is not None:
            json.loads(out + closing)
