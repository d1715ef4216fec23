"""Whose request it is: from headers, named fields, or the first thing the user said."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balancers import Hint
from proxy.balancers.affinity_key import BODY_KEYS, SESSION_HEADERS, SessionHeaders, session_in_body

SYSTEM = {"role": "system", "content": "You are an agent. " * 100}


class Line(NamedTuple):
    lower: bytes
    value: bytes


def hint(headers: Mapping[bytes, bytes], body: object = None) -> Hint:
    raw = b"" if body is None else orjson.dumps(body)
    values = {key: body[key] for key in BODY_KEYS if key in body} if isinstance(body, dict) else {}
    found = SessionHeaders().find([Line(b"accept", b"*/*"), *(Line(*header) for header in headers.items())])
    return found or session_in_body(values, raw)


def chat(*messages: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [SYSTEM, *messages], **more}


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, object]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_every_agents_header_names_its_session(name: bytes) -> None:
    one, other = hint({name: b"ses_1"}), hint({name: b"ses_2"})

    assert one.session is not None and len(one.session) == 8
    assert one == hint({name: b"ses_1"}, chat(user("hi"), user="u"))
    assert one.session != other.session
    assert not one.is_new


def test_the_first_header_in_the_order_counts() -> None:
    both = hint({b"x-session-id": b"b", b"x-session-affinity": b"a", b"session_id": b"c"})

    assert both == hint({b"x-session-affinity": b"a"})


def test_an_empty_header_names_nothing() -> None:
    assert hint({b"x-session-id": b""}) == Hint()


def test_other_headers_can_be_configured() -> None:
    found = SessionHeaders([b"X-Mine"]).find([Line(b"x-session-id", b"2"), Line(b"x-mine", b"1")])

    assert found is not None and found.session == hint({b"x-session-id": b"1"}).session


def test_a_sub_agent_knows_its_parent_by_the_name_the_parent_has() -> None:
    parent = hint({b"x-session-affinity": b"ses_1", b"x-session-id": b"ses_1"})
    child = hint({b"x-session-id": b"ses_2", b"x-parent-session-id": b"ses_1"})

    assert child.parent == parent.session
    assert parent.parent is None


def test_a_session_is_not_its_own_parent() -> None:
    assert hint({b"x-session-id": b"a", b"x-parent-session-id": b"a"}).parent is None


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ({"prompt_cache_key": "k"}, {"user": "u"}),
        ({"user": "u"}, {"metadata": {"user_id": "m"}}),
        ({"metadata": {"user_id": "m"}}, {}),
    ],
)
def test_named_fields_come_before_what_the_user_said(
    stronger: dict[str, object], weaker: dict[str, object]
) -> None:
    found = hint({}, chat(user("hi"), **stronger, **weaker))

    assert found == hint({}, chat(user("something else"), **stronger))
    assert found.session != hint({}, chat(user("hi"), **weaker)).session
    assert not found.is_new


@pytest.mark.parametrize("value", ["", None, 5, ["x"], {"a": 1}])
def test_fields_that_are_no_names_are_passed_over(value: object) -> None:
    odd = hint({}, chat(user("hi"), prompt_cache_key=value, user=value, metadata=value))

    assert odd == hint({}, chat(user("hi")))


def test_a_conversation_keeps_its_name_as_it_grows() -> None:
    first = chat(user("Write a proxy."))
    second = chat(user("Write a proxy."), assistant("Done."), user("Now test it."))

    assert hint({}, first).session == hint({}, second).session
    assert (hint({}, first).is_new, hint({}, second).is_new) == (True, False)


def test_conversations_under_one_system_prompt_differ() -> None:
    names = {hint({}, chat(user(f"Task {n}"))).session for n in range(50)}

    assert len(names) == 50


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "Write a proxy."}],
        [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "Write a proxy."}],
        [{"type": "input_text", "text": "Write a proxy."}, {"type": "text", "text": "more"}],
    ],
)
def test_parts_are_read_as_text(content: object) -> None:
    assert hint({}, chat(user(content))).session == hint({}, chat(user("Write a proxy."))).session


def test_the_responses_api_is_understood() -> None:
    plain = hint({}, {"model": "m", "input": "Write a proxy."})
    grown = {
        "model": "m",
        "input": [user([{"type": "input_text", "text": "Write a proxy."}]), {"type": "function_call"}],
    }

    assert plain.session == hint({}, grown).session == hint({}, chat(user("Write a proxy."))).session
    assert (plain.is_new, hint({}, grown).is_new) == (True, False)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": []},
        {"messages": "text"[:0]},
        {"messages": [5, None, "x"]},
        {"messages": [SYSTEM]},
        {"messages": [user(None)]},
        {"messages": [user([])]},
        {"messages": [user([{"type": "image_url"}, 5])]},
        {"input": {"role": "user"}},
        {"prompt": "def f("},
    ],
)
def test_where_nobody_said_anything_there_is_no_session(body: dict[str, object]) -> None:
    assert hint({}, body).session is None


def test_a_lone_surrogate_is_a_name_as_any_other() -> None:
    values = {"messages": [{"role": "user", "content": "\ud800"}], "user": "\udfff"}

    assert session_in_body(values, b"").session is not None
    assert session_in_body({"messages": values["messages"]}, b"").session is not None


SCANNED = [
    (chat(user("Write a proxy.")), True),
    (chat(user("Write a proxy."), assistant("Done."), user("more")), False),
    (chat({"content": "Write a proxy.", "role": "user"}), True),
    (chat(user([{"type": "text", "text": "Write a proxy."}])), True),
]


@pytest.mark.parametrize(("body", "is_new"), SCANNED)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_bodies_that_were_not_parsed_are_searched(
    body: object, is_new: bool, separators: tuple[str, str]
) -> None:
    raw = json.dumps(body, separators=separators).encode()

    found = session_in_body({"messages": None}, raw)

    assert found == session_in_body({}, raw)
    assert found.session == hint({}, chat(user("Write a proxy."))).session
    assert found.is_new is is_new


def test_a_search_ends_where_a_huge_system_prompt_does_not() -> None:
    raw = json.dumps({"messages": [{"role": "system", "content": "x" * 10**6}, user("hi")]}).encode()

    assert session_in_body({}, raw) == Hint()


@given(st.binary(max_size=200))
def test_any_bytes_are_searched_without_harm(noise: bytes) -> None:
    for body in (noise, b'"role":"user","content":"' + noise, b'"content":"' + noise + b'","role":"user"'):
        session_in_body({}, body)
