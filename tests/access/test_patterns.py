"""Wildcards against the regular expression they stand for."""

import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.patterns import Patterns

TABLE = [
    ((), "anything", True),
    (("*",), "", True),
    (("gpt-4o",), "gpt-4o", True),
    (("gpt-4o",), "gpt-4o-mini", False),
    (("gpt-4*",), "gpt-4o-mini", True),
    (("gpt-4*",), "agpt-4", False),
    (("*-coder",), "qwen3-coder", True),
    (("qwen*coder*",), "qwen3-coder-480b", True),
    (("qwen*coder*",), "coder-qwen", False),
    (("a*a",), "a", False),
    (("a*a",), "aa", True),
    (("Qwen/*",), "qwen/x", False),
    (("nothing", "team-?"), "team-1", False),
    (("x.z",), "xyz", False),
]


@pytest.mark.parametrize(("patterns", "name", "allowed"), TABLE)
def test_a_star_stands_for_any_text(patterns, name, allowed):
    assert Patterns(patterns).allows(name) is allowed


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_matches_what_the_regular_expression_would(pattern, name):
    expression = ".*".join(re.escape(piece) for piece in pattern.split("*"))

    assert Patterns([pattern]).allows(name) is (re.fullmatch(expression, name) is not None)


def test_a_long_name_cannot_make_matching_slow():
    patterns, name = Patterns(["*a*a*a*a*a*a*a*b"]), "a" * 200_000 + "c"
    began = perf_counter()

    assert not patterns.allows(name)
    assert perf_counter() - began < 1.0  # a regular expression would take years
