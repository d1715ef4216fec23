import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.scans import cuts

from proxy.adapters.tool_calls.json_stream import MAX_DEPTH, MAX_WAITING, JsonStream


def read(pieces: list[str]) -> tuple[str, str, JsonStream]:
    """The value, closed if it has no end, and what was not read. What was said is JSON at every moment."""
    value = JsonStream()
    out: list[str] = []
    rest = ""
    for piece in pieces:
        rest += piece
        if not value.done:
            rest = rest[value.read(rest, 0, out.append) :]
            json.loads("".join(out) + value.closing() or "null")
    if not value.done:
        rest = rest[value.read(rest, 0, out.append, ended=True) :]
    whole = value.done and not value.broken
    return "".join(out) + ("" if whole else value.closing()), rest, value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
containers = st.dictionaries(st.text(), values, max_size=4) | st.lists(values, max_size=4) | st.text()


@given(containers, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_json_passes_as_it_is_and_its_end_is_found(
    value: object, ascii: bool, indent: int | None, data: st.DataObject
) -> None:
    written = json.dumps(value, ensure_ascii=ascii, indent=indent)
    behind = '}, "more": 1}'
    cut = data.draw(st.integers(0, len(written)))

    said, rest, state = read([written[:cut], written[cut:] + behind])

    assert (said, rest) == (written, behind)
    assert state.done and not state.broken and not state.repaired


SOUP = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "'",
    "\\",
    " ",
    "\n",
    "a",
    "12",
    "-",
    "true",
    "None",
    "u00e9",
    "<",
    '"k": ',
]


@given(st.sampled_from(["{", "[", '"']), st.lists(st.sampled_from(SOUP), max_size=12), st.data())
def test_whatever_comes_it_is_json_in_the_end(first: str, soup: list[str], data: st.DataObject) -> None:
    text = first + "".join(soup)
    at = data.draw(st.integers(0, len(text)))

    said, rest, state = read([text])

    json.loads(said)
    for pieces in (list(text), [text[:at], text[at:]]):
        again = read(pieces)
        assert again[:2] == (said, rest)
        assert (again[2].broken, again[2].repaired) == (state.broken, state.repaired)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ('{"a": "x\ny\tz\x01"}', {"a": "x\ny\tz\x01"}),
        (r'{"a": "\d+ C:\Users \u12 it\'s"}', {"a": r"\d+ C:\Users \u12 it's"}),
        ('{"a": 1, "b": [1, 2,],}', {"a": 1, "b": [1, 2]}),
        ('{"a": , "b": }', {"a": None, "b": None}),
        ('{"a": True, "b": [False, None]}', {"a": True, "b": [False, None]}),
        ('{"a": [1, {"b": 2]}', {"a": [1, {"b": 2}]}),
    ],
)
def test_slips_that_leave_no_doubt_are_mended(text: str, mended: object) -> None:
    for pieces in cuts(text):
        said, rest, state = read(pieces)

        assert json.loads(said) == mended and rest == ""
        assert state.done and state.repaired and not state.broken


@pytest.mark.parametrize(
    ("text", "said", "left", "rest"),
    [
        ('{"a": 1, "b": word}', '{"a": 1}', ', "b": ', "word}"),
        ('{"a": 01}', "{}", '"a": ', "01}"),
        ('{"a": NaN}', "{}", '"a": ', "NaN}"),
        ('{"a": "x" "y"}', '{"a": "x"}', " ", '"y"}'),
        ('{"a" "b"}', "{}", '"a" ', '"b"}'),
        ("{a: 1}", "{}", "", "a: 1}"),
        ("{'a': 1}", "{}", "", "'a': 1}"),
        ('{"a": [1, , 2]}', '{"a": [1]}', ", ", ", 2]}"),
        ('{"a": "x"]', '{"a": "x"}', "", "]"),
        ('{"a": {"b": "</t>"}</t>', '{"a": {"b": "</t>"}}', "", "</t>"),
    ],
)
def test_what_fits_nowhere_ends_it(text: str, said: str, left: str, rest: str) -> None:
    for pieces in cuts(text):
        answer = read(pieces)

        assert answer[:2] == (said, rest)
        assert answer[2].broken and answer[2].left == left


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": "x', '{"a": "x"}'),
        ('{"a": ["x", {"b": 1', '{"a": ["x", {"b": 1}]}'),
        ('{"a": tru', "{}"),
        ('{"a": 12', '{"a": 12}'),
        ('{"a": -', "{}"),
        ('{"a": 1, "b":', '{"a": 1}'),
        ('{"a', "{}"),
        ('{"a": 1,', '{"a": 1}'),
        ('{"a": "x\\', '{"a": "x"}'),
        ('{"a": "x\\u00', '{"a": "x"}'),
    ],
)
def test_a_cut_value_can_always_be_closed(text: str, said: str) -> None:
    for pieces in cuts(text):
        assert read(pieces)[0] == said


def test_texts_do_not_wait() -> None:
    value = JsonStream()
    out: list[str] = []
    value.read('{"a": "', 0, out.append)

    for character in "one text":
        value.read(character, 0, out.append)

    assert out[-8:] == list("one text")


@pytest.mark.parametrize("text", ["[" * (MAX_DEPTH + 1), '{"' + "k" * (MAX_WAITING + 1)])
def test_what_waits_is_bounded(text: str) -> None:
    said, _, state = read([text])

    assert state.done and state.broken
    json.loads(said)


def test_white_space_between_tokens_is_not_kept_without_end() -> None:
    said, _, state = read(['{"a":', *[" " * MAX_WAITING] * 3, "1}"])

    assert len(said) < 2 * MAX_WAITING and json.loads(said) == {"a": 1}
    assert not state.broken
