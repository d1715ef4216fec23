"""Where a request came from, and whether an address is on a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import address, client_ip, is_within, networks, trusted_networks

PROXIES = trusted_networks(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])

WALKS = [
    # peer, X-Forwarded-For, whose address it is
    ("203.0.113.9", b"1.2.3.4", "203.0.113.9"),
    ("10.0.0.1", None, "10.0.0.1"),
    ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
    ("10.0.0.1", b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
    ("10.0.0.1", b"6.6.6.6, 1.2.3.4,10.0.0.2 , 192.0.2.1", "1.2.3.4"),
    ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ("10.0.0.1", b"1.2.3.4:5678", "1.2.3.4"),
    ("10.0.0.1", b"[2001:db8::1]:5678", "2001:db8::1"),
    ("10.0.0.1", b"[2001:db8::1]", "2001:db8::1"),
    ("10.0.0.1", b"2001:db8::1", "2001:db8::1"),
    ("10.0.0.1", b"::ffff:1.2.3.4", "1.2.3.4"),
    ("::ffff:10.0.0.1", b"1.2.3.4", "1.2.3.4"),
    ("fd00::1", b"fe80::1%eth0", "fe80::1"),
    ("10.0.0.1", b"unknown", "10.0.0.1"),
    ("10.0.0.1", b"", "10.0.0.1"),
    ("10.0.0.1", b"1.2.3.4, junk", "10.0.0.1"),
    ("10.0.0.1", b"1.2.3.4, junk, 10.0.0.2", "10.0.0.2"),
    ("10.0.0.1", b"[1.2.3.4", "10.0.0.1"),
    ("10.0.0.1", b"\xff\xfe", "10.0.0.1"),
    ("10.0.0.1", b"1" * 100, "10.0.0.1"),
    ("local", b"1.2.3.4", "1.2.3.4"),
    ("local", b"junk", "local"),
]


@pytest.mark.parametrize(("peer", "forwarded_for", "client"), WALKS)
def test_only_what_trusted_hops_wrote_is_believed(peer, forwarded_for, client):
    assert client_ip(peer, forwarded_for, PROXIES) == client


def test_nobody_is_believed_where_nobody_is_trusted():
    assert client_ip("10.0.0.1", b"1.2.3.4", ()) == "10.0.0.1"
    assert client_ip("local", b"1.2.3.4", ()) == "local"


@given(st.binary(max_size=200))
def test_a_client_cannot_write_itself_another_address(forged):
    assert client_ip("203.0.113.9", forged, PROXIES) == "203.0.113.9"
    assert client_ip("10.0.0.1", forged + b", 203.0.113.9", PROXIES) == "203.0.113.9"


IS_WITHIN = [
    ("10.1.2.3", ["10.0.0.0/8"], True),
    ("11.1.2.3", ["10.0.0.0/8"], False),
    ("10.1.2.3", ["10.1.2.3"], True),
    ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
    ("10.1.2.3", ["::ffff:10.0.0.0/104"], True),
    ("10.1.2.3", ["10.1.2.3/8"], True),
    ("10.1.2.3", ["::/0"], False),
    ("2001:db8::5", ["192.0.2.0/24", " 2001:db8::/32 "], True),
    ("fe80::1%eth0", ["fe80::/10"], True),
]


@pytest.mark.parametrize(("text", "listed", "expected"), IS_WITHIN)
def test_lists_hold_addresses_and_networks_of_both_families(text, listed, expected):
    found = address(text)

    assert found is not None
    assert is_within(found, networks(listed)) is expected


@pytest.mark.parametrize("text", ["", "local", "1.2.3", "1.2.3.4/8", "10.0.0.1 ", "[::1]"])
def test_what_is_no_address_is_none(text):
    assert address(text) is None


@pytest.mark.parametrize("text", ["", "ten", "10.0.0.0/33", "10.0.0.0/-1"])
def test_what_is_no_network_is_an_error(text):
    with pytest.raises(ValueError):
        networks([text])
