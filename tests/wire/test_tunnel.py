"""What is said to outbound proxies, byte by byte, and what their answers mean."""

import base64

import pytest

from proxy.wire.tunnel import HEAD, NoTunnel, OutboundProxy, ServerRefused, outbound_proxy


def held(url, host, port, *answers):
    """Everything that is said while these answers come; an answer is as long as was asked for."""
    talk = outbound_proxy(url).talk(host, port)
    said, wanted = next(talk)
    everything = [said]
    for answer in answers:
        assert wanted == HEAD or len(answer) == wanted
        try:
            said, wanted = talk.send(answer)
        except StopIteration:
            return everything
        everything.append(said)
    raise AssertionError(f"the talk goes on and wants {wanted}")


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("host", "authority"),
    [("a.example", b"a.example:8443"), ("10.0.0.1", b"10.0.0.1:8443"), ("::1", b"[::1]:8443")],
)
def test_connect_names_the_server(host, authority):
    said = held("http://p:3128", host, 8443, OK)

    assert said == [b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n"]


def test_connect_carries_user_and_password_as_they_were_meant():
    (said,) = held("http://al%40x:p%3A%2F%C3%BC@p:3128", "a", 80, OK)

    login = base64.b64encode("al@x:p:/ü".encode())
    assert said.endswith(b"\r\nProxy-Authorization: Basic " + login + b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\nContent-Length: 10\r\n\r\n",
    ],
)
def test_any_2xx_is_a_way(head):
    assert held("http://p:1", "a", 80, head)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"HTTP/1.1 407 canary\r\nProxy-Authenticate: canary\r\n\r\n", "it answered 407"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://canary/\r\n\r\n", "it answered 302"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "it answered 100"),
        (b"SSH-2.0-canary\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/2.0 200 canary\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 2000 canary\r\n\r\n", "its answer is not HTTP"),
    ],
)
def test_any_other_answer_is_none_and_is_not_repeated(head, why):
    with pytest.raises(NoTunnel) as caught:
        held("http://p:1", "a", 80, head)

    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("a.example", b"\x03\x09a.example"),
        ("10.0.0.1", b"\x01\x0a\x00\x00\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"),
    ],
)
@pytest.mark.parametrize(
    "bound", [(b"\x01", b"\0" * 6), (b"\x04", b"\0" * 18), (b"\x03", b"\x04", b"name\0\x07")]
)
def test_socks_names_the_server_and_reads_over_where_it_is_bound(host, address, bound):
    kind, *rest = bound

    said = held("socks5h://p:1", host, 8443, b"\x05\x00", b"\x05\x00\x00" + kind, *rest)

    assert said[:2] == [b"\x05\x01\x00", b"\x05\x01\x00" + address + b"\x20\xfb"]
    assert set(said[2:]) <= {b""}


def test_socks_logs_in_where_it_is_asked_to():
    said = held("socks5://u:pw@p:1", "10.0.0.1", 80, b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x01", b"\0" * 6)

    assert said[:2] == [b"\x05\x02\x00\x02", b"\x01\x01u\x02pw"]


def test_socks_logs_in_only_where_it_is_asked_to():
    said = held("socks5://u:pw@p:1", "10.0.0.1", 80, b"\x05\x00", b"\x05\x00\x00\x01", b"\0" * 6)

    assert not any(b"pw" in piece for piece in said)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b"HT"], "its answer is not SOCKS 5"),
        ([b"\x05\xff"], "it wants another way to log in"),
        ([b"\x05\x01"], "it chose what was not offered"),
        ([b"\x05\x02", b"\x01\x01"], "it refused user and password"),
        ([b"\x05\x00", b"\x04\x00\x00\x01"], "its answer is not SOCKS 5"),
        ([b"\x05\x00", b"\x05\x00\x00\x09"], "its answer is not SOCKS 5"),
    ],
)
def test_what_socks_servers_refuse_or_get_wrong_is_named(answers, why):
    with pytest.raises(NoTunnel) as caught:
        held("socks5h://u:canary@p:1", "a", 80, *answers)

    assert str(caught.value) == why
    assert not isinstance(caught.value, ServerRefused)


def test_a_login_that_was_not_offered_is_not_given():
    with pytest.raises(NoTunnel, match="not offered"):
        held("socks5h://p:1", "a", 80, b"\x05\x02")


@pytest.mark.parametrize(
    ("reply", "why"), [(5, "connection refused"), (4, "host unreachable"), (77, "reply 77")]
)
def test_a_server_that_socks_cannot_reach_is_told_from_a_proxy_that_does_not_work(reply, why):
    with pytest.raises(ServerRefused) as caught:
        held("socks5h://p:1", "a", 80, b"\x05\x00", bytes((5, reply, 0, 1)))

    assert str(caught.value) == why


def test_a_name_that_socks_has_no_room_for_is_refused():
    with pytest.raises(NoTunnel, match="too long"):
        held("socks5h://p:1", "a" * 256, 80, b"\x05\x00")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://p", OutboundProxy("http", "p", 80)),
        ("https://P.example:3128/", OutboundProxy("https", "p.example", 3128)),
        ("socks5://[::1]", OutboundProxy("socks5", "::1", 1080)),
        ("socks5h://u:@10.0.0.1:9", OutboundProxy("socks5h", "10.0.0.1", 9, "u", "")),
        ("http://u%3a:x@p", "the user of an HTTP proxy must not hold a colon"),
        ("http://:canary@p", "has a password and no user"),
        ("socks5://u:" + "c" * 256 + "@p", "SOCKS has room for 255 bytes of user and password each"),
        ("ftp://canary@p", "must begin with http://, https://, socks5:// or socks5h://"),
        ("socks4://canary@p", "must begin with http://, https://, socks5:// or socks5h://"),
        ("p:3128", "must begin with http://, https://, socks5:// or socks5h://"),
        ("http://", "must be a URL such as http://host:3128"),
        ("http://p:0", "must be a URL such as http://host:3128"),
        ("http://ü:3128", "must be a URL such as http://host:3128"),
        ("http://p:canary", "is not a URL"),
        ("http://[canary", "is not a URL"),
        ("http://p/path", "may hold scheme, user, password, host and port, nothing more"),
        ("http://p?canary", "may hold scheme, user, password, host and port, nothing more"),
    ],
)
def test_a_url_is_read_or_refused_without_being_repeated(url, expected):
    try:
        found = outbound_proxy(url)
    except ValueError as error:
        found = str(error)
        assert "canary" not in found

    assert found == expected


def test_a_password_with_line_breaks_stays_in_its_place():
    (said,) = held("http://u:a%0d%0aX:1@p", "a", 80, OK)

    assert said.count(b"\r\n") == 4


def test_credentials_are_not_in_what_is_printed():
    assert "canary" not in repr(outbound_proxy("http://canary-user:canary@p"))
