import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.document import MAX_DEPTH, Reader, kind_of
from proxy.config.expand import Expander


def read(text, environ=None):
    problems = []
    node = Reader(Expander(environ or {}, open), problems.append).read(text)
    return node, problems


def plain(node):
    """The tree without lines and paths."""
    if isinstance(node.value, dict):
        return {key: plain(entry) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


SCALARS = [
    ("1", 1),
    ("-7", -7),
    ("0123", 123),
    ("1.5", 1.5),
    ("1e3", 1000.0),
    (".5", 0.5),
    ("true", True),
    ("False", False),
    ("~", None),
    ("null", None),
    ("", None),
    ("yes", "yes"),
    ("on", "on"),
    ("12:30", "12:30"),
    ("1_000", "1_000"),
    ("0x10", "0x10"),
    ("2027-01-31", "2027-01-31"),
    ('"1"', "1"),
    ("'true'", "true"),
    ('""', ""),
    ("9" * 40, float("9" * 40)),
]


@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_scalars_are_read_as_yaml_1_2_does(text, expected):
    node, problems = read(f"key: {text}\n")

    assert problems == []
    assert plain(node) == {"key": expected}
    assert type(node.mapping["key"].value) is type(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), JSON, max_size=4),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_json_is_yaml(document, indent, ascii_only):
    document = json.loads(json.dumps(document).replace("$", "S"))
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)

    node, problems = read(text)

    assert problems == []
    assert plain(node) == document


def test_flow_mappings_that_are_not_json_are_yaml_too():
    node, problems = read("{a: 1, b: [x, y]}")

    assert (plain(node), problems) == ({"a": 1, "b": ["x", "y"]}, [])


def test_every_node_knows_its_line_and_path():
    node, _ = read("a:\n  b:\n    - x\n    - c: 1\n")

    inner = node.mapping["a"].mapping["b"].items[1]
    assert (inner.line, inner.path) == (4, "a.b[1]")
    assert (inner.mapping["c"].line, inner.mapping["c"].path) == (4, "a.b[1].c")


def test_a_section_may_be_joined_from_anchors():
    text = """
x-a: &a {one: 1, two: 2}
x-b: &b {two: 22, three: 3}
joined: {<<: [*a, *b], three: 33}
first: {four: 4, <<: *a}
again: *a
"""
    node, problems = read(text)

    assert problems == []
    assert plain(node.mapping["joined"]) == {"one": 1, "two": 2, "three": 33}
    assert plain(node.mapping["first"]) == {"one": 1, "two": 2, "four": 4}
    assert plain(node.mapping["again"]) == {"one": 1, "two": 2}


FAILURES = [
    ("a: 1\nb: 2\na: 3\n", 3, "a", "written twice, first in line 1"),
    ("a: {<<: 7}\n", 1, "a", "<< can only join mappings"),
    ("a: !!python/object:os.system x\n", 1, "a", "YAML tags"),
    ("a: !thing {b: 1}\n", 1, "a", "YAML tags"),
    ("? [1, 2]\n: x\n", 1, "", "a key must be text"),
    ("a: [1\nb: 2\n", 2, "", "not YAML"),
    ("a: 1\n---\nb: 2\n", 2, "", "not YAML"),
    ("a: 1\nb: *nobody\n", 2, "", "not YAML"),
    ("a: \x01\n", 1, "", "not YAML"),
    ("ok: 1\nbad: ${NOPE}\n", 2, "bad", "NOPE is not set"),
    ("a: &a [*a]\n", 1, "", "nests too deep"),
    ("a: " + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), 1, "", "nests too deep"),
    ("a: 1\nb: " + "[" * 1_000_000, 2, "", "nests too deep"),
]


@pytest.mark.parametrize(("text", "line", "path", "sentence"), FAILURES)
def test_what_is_wrong_with_the_text_is_named_with_its_line(text, line, path, sentence):
    _, problems = read(text)

    assert len(problems) == 1
    assert problems[0].line == line
    assert problems[0].path.startswith(path)
    assert sentence in str(problems[0])


def test_variables_are_put_in_where_they_stand():
    node, problems = read('a: "x-${A}"\nb: ${B}\nc: $${A}\n', {"A": "[1, 2]", "B": "5"})

    assert problems == []
    assert plain(node) == {"a": "x-[1, 2]", "b": "5", "c": "${A}"}
    assert [entry.is_expanded for entry in node.mapping.values()] == [True, True, True]
    assert node.mapping["a"].text == "x-${A}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{}", "a mapping"),
        ("[]", "a list"),
        ("~", "nothing"),
        ("1", "a number"),
        ("true", "true or false"),
        ("x", "text"),
    ],
)
def test_kinds_are_named_in_words(text, kind):
    node, _ = read(f"a: {text}")

    assert kind_of(node.mapping["a"]) == kind


def test_an_empty_document_is_an_empty_mapping():
    for text in ("", "# nothing\n", "{}"):
        node, problems = read(text)

        assert (plain(node), problems) == ({}, [])
