import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.scanning_pattern import (
    MAX_SPACE,
    MORE,
    SPACE,
    Ahead,
    Atom,
    Either,
    End,
    Lit,
    Never,
    Pattern,
    Run,
    Seq,
    any_of,
    candidates,
    captures,
    maybe,
    skip_space,
    template,
)

KINDS = {"name": r"[a-z]"}


@pytest.mark.parametrize(
    ("atom", "text", "expected"),
    [
        (Lit("<tool>"), "<tool>", 6),
        (Lit("<tool>"), "<tool> and more", 6),
        (Lit("<tool>"), "<to", MORE),
        (Lit("<tool>"), "<tap", None),
        (Seq(Lit("<a>"), SPACE, Lit("<b>")), "<a> \n<b>", 8),
        (Seq(Lit("<a>"), SPACE, Lit("<b>")), "<a> \n", MORE),
        (Seq(Lit("<a>"), SPACE, Lit("<b>")), "<a> \n<", MORE),
        (Seq(Lit("<a>"), SPACE, Lit("<b>")), "<a> x", None),
        (Seq(Lit("="), Run("[a-z]"), Lit(">")), "=abc", MORE),
        (Seq(Lit("="), Run("[a-z]"), Lit(">")), "=abc>", 5),
        (Seq(Lit("="), Run("[a-z]"), Lit(">")), "=>", None),
        (Seq(Lit("a"), maybe(Lit("b"), SPACE), Lit("c")), "a", MORE),
        (Seq(Lit("a"), maybe(Lit("b"), SPACE), Lit("c")), "ac", 2),
        (Seq(Lit("a"), maybe(Lit("b"), SPACE), Lit("c")), "ab  c", 5),
        (Seq(Lit("a"), Ahead(Either(Lit("bc"), Lit("d")))), "ab", MORE),
        (Seq(Lit("a"), Ahead(Either(Lit("bc"), Lit("d")))), "ad", 1),
        (Seq(Lit("a"), Ahead(Either(Lit("bc"), Lit("d")))), "ae", None),
        (any_of(("<a", "<ab>")), "<ab>", 4),
        (any_of(()), "anything", None),
        (Never(), "anything", None),
    ],
)
def test_a_verdict_is_yes_no_or_ask_again(atom: Atom, text: str, expected: object) -> None:
    found = Pattern(atom).match(text, 0, False)

    assert (found if found is None or found is MORE else found.end()) == expected


def test_at_the_end_of_the_text_there_is_nothing_to_ask_for() -> None:
    pattern = Pattern(Lit("<tool>"))

    assert pattern.match("<to", 0, True) is None


def test_the_end_is_an_atom_that_only_the_end_can_show() -> None:
    pattern = Pattern(Seq(Lit("</a>"), SPACE, End()))

    assert pattern.match("</a>  ", 0, False) is MORE
    assert pattern.match("</a> x", 0, False) is None
    assert pattern.match("</a>  ", 0, True) is not None


def test_more_white_space_than_tags_have_between_them_is_no_match() -> None:
    pattern = Pattern(Seq(Lit("<a>"), SPACE, Lit("<b>")))

    assert pattern.match("<a>" + " " * MAX_SPACE, 0, False) is MORE
    assert pattern.match("<a>" + " " * (MAX_SPACE + 1), 0, False) is None


def test_find_says_where_text_is_safe_up_to() -> None:
    pattern = Pattern(Lit("<tool>"))

    assert pattern.find("a < b", 0, False) == (5, None)
    assert pattern.find("a <b> <to", 0, False) == (6, None)
    stop, found = pattern.find("a <tool> b", 0, False)
    assert (stop, found and found.end()) == (2, 8)


def test_a_pattern_knows_what_it_begins_with() -> None:
    assert Pattern(Seq(maybe(Lit("\n")), Lit("</a>"))).leads == {"\n", "</a>"}
    assert Pattern(Seq(Lit("a"), Lit("b"))).leads == {"a"}
    assert Pattern(End()).leads == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <b <tool> c", 5),
        ("a <tool", 2),
        ("a <t", 2),
        ("a <x", None),
        ("", None),
        ("tool>", None),
        ("a\n", 1),
    ],
)
def test_candidates_are_where_a_literal_begins(text: str, expected: int | None) -> None:
    found = candidates(frozenset({"<tool>", "\n</tool>"})).search(text)

    assert (found and found.start()) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('<invoke name="f">', "f"),
        ("<invoke name='f'>", "f"),
        ("<invoke name=f>", "f"),
        ('<invoke\n  name = "f" >', "f"),
    ],
)
def test_an_attribute_takes_every_style_of_quotes(text: str, name: str) -> None:
    pattern = Pattern(template('<invoke name="{name}">', KINDS))

    found = pattern.match(text, 0, False)

    assert found is not None and found is not MORE
    assert captures(found) == {"name": name}
    assert found.end() == len(text)


def test_the_same_thing_may_be_captured_by_several_spellings() -> None:
    pattern = Pattern(Either(template("a {name};", KINDS), template("b {name};", KINDS)))

    found = pattern.match("b xyz;", 0, False)

    assert found is not None and found is not MORE
    assert captures(found) == {"name": "xyz"}


def test_what_is_not_captured_has_no_name() -> None:
    pattern = Pattern(template("<{name}>", KINDS, capture=False))

    found = pattern.match("<f>", 0, False)

    assert found is not None and found is not MORE
    assert captures(found) == {}


def test_white_space_is_skipped_to_its_end() -> None:
    assert skip_space("a \n\t b", 1) == 5
    assert skip_space("a  ", 1) == 3


literals = st.text("ab<>", min_size=1, max_size=3).map(Lit)
atoms = st.recursive(
    st.one_of(literals, st.just(SPACE), st.just(Run("[ab]", 1, 3)), st.just(Run("[ab]", 0, 2, "name"))),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Seq(*parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: maybe(*parts)),
    ),
    max_leaves=6,
)


@given(atoms, st.text("ab<> ", max_size=8), st.text("ab<> ", max_size=4))
def test_no_is_final(atom: Atom, text: str, more: str) -> None:
    pattern = Pattern(Seq(atom, Lit("!")))

    if pattern.match(text, 0, False) is None:
        assert pattern.match(text + more + "!", 0, True) is None


@given(atoms, st.text("ab<> !", max_size=8), st.text("ab<> !", max_size=4))
def test_yes_is_final_where_nothing_is_a_beginning_of_something_else(
    atom: Atom, text: str, more: str
) -> None:
    pattern = Pattern(Seq(atom, Lit("!")))
    found = pattern.match(text, 0, False)

    if found is not None and found is not MORE:
        again = pattern.match(text + more, 0, False)
        assert again is not None and again is not MORE and again.end() == found.end()
