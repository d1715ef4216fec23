"""Which header holds the key."""

import pytest

from proxy.access import CredentialHeaders, key_in

BOTH = (b"Authorization", b"X-API-Key")

FOUND = [
    ([(b"Authorization", b"Bearer sk-1")], b"sk-1"),
    ([(b"authorization", b"bearer sk-1")], b"sk-1"),
    ([(b"AUTHORIZATION", b"BEARER    sk-1  ")], b"sk-1"),
    ([(b"x-api-key", b" sk-2\t")], b"sk-2"),
    ([(b"X-Api-Key", b"Bearer sk-2")], b"Bearer sk-2"),
    ([(b"X-API-Key", b"sk-2"), (b"Authorization", b"Bearer sk-1")], b"sk-1"),
    ([(b"X-API-Key", b"sk-2"), (b"Authorization", b"Basic dXNlcg==")], b"sk-2"),
    ([(b"Authorization", b"Bearer "), (b"X-API-Key", b"sk-2")], b"sk-2"),
    ([(b"X-API-Key", b""), (b"X-API-Key", b"sk-2"), (b"X-API-Key", b"sk-3")], b"sk-2"),
    ([(b"Authorization", b"Bearer \xff\xfe")], b"\xff\xfe"),
]
NOT_FOUND = [
    [],
    [(b"Authorization", b"Bearer")],
    [(b"Authorization", b"Bearersk-1")],
    [(b"Authorization", b"Bearer\tsk-1")],
    [(b"Authorization", b"sk-1")],
    [(b"Authorization", b"Token Bearer sk-1")],
    [(b"X-API-Key", b"  ")],
    [(b"X-API-Keys", b"sk-1"), (b"Proxy-Authorization", b"Bearer sk-1")],
]


@pytest.mark.parametrize(("lines", "key"), FOUND)
def test_the_first_configured_header_that_holds_a_key_wins(lines, key):
    assert CredentialHeaders(BOTH).find(lines) == key
    assert key_in(lines, BOTH) == key


@pytest.mark.parametrize("lines", NOT_FOUND)
def test_what_is_not_quite_a_credential_is_none(lines):
    assert CredentialHeaders(BOTH).find(lines) is None


def test_the_configured_order_counts_and_not_the_order_of_the_lines():
    lines = [(b"Authorization", b"Bearer sk-1"), (b"X-API-Key", b"sk-2")]

    assert CredentialHeaders(["x-api-key", "authorization"]).find(lines) == b"sk-2"


def test_every_configured_header_belongs_to_the_credential():
    assert CredentialHeaders(["Authorization", "X-API-Key", "api-key"]).names == {
        b"authorization",
        b"x-api-key",
        b"api-key",
    }


def test_a_name_that_is_configured_twice_keeps_its_first_place():
    lines = [(b"a", b"1"), (b"b", b"2")]

    assert CredentialHeaders(["A", "b", "a"]).find(lines) == b"1"
