"""The heads we send: the client's lines, less what is not for the upstream."""

import pytest

from proxy.wire.headers import RequestRewrite, answer_head
from proxy.wire.http1 import MAX_MEMO, parse_answer_head, parse_request_head

HEAD = (
    b"POST /v1/x?a=%2f HTTP/1.1\r\nhost: gateway\r\nX-One:  1 \r\nAuthorization: Bearer secret\r\n"
    b"Connection: x-hop, keep-alive\r\nX-Hop: gone\r\nTE: trailers\r\nX-One: \xff\r\n%b\r\n\r\n"
)
REWRITE = RequestRewrite(
    host=b"up:1", prefix=b"/base", replaced=[b"authorization"], added=[(b"Authorization", b"Bearer ours")]
)
EXPECTED = (
    b"POST /base/v1/x?a=%%2f HTTP/1.1\r\nhost: up:1\r\nX-One:  1 \r\nX-One: \xff\r\n%b"
    b"Authorization: Bearer ours\r\n\r\n"
)


@pytest.mark.parametrize(
    ("line", "length", "sent"),
    [
        (b"Content-Length: 12", 12, b"Content-Length: 12\r\n"),
        (b"content-length: 12", 7, b"content-length: 7\r\n"),
        (b"Content-Length: 0", 0, b"Content-Length: 0\r\n"),
        (b"Transfer-Encoding: chunked", 5, b"Content-Length: 5\r\n"),
        (b"X-Last: 1", 0, b"X-Last: 1\r\n"),
        (b"content-length:12", 7, b"content-length:7\r\n"),
        (b"Content-Length:  12 \t", 345, b"Content-Length:  345 \t\r\n"),
    ],
)
def test_a_request_head_is_the_clients_but_for_hop_host_and_credential(line, length, sent):
    for _ in range(2):  # made, and remembered
        head = parse_request_head(HEAD.replace(b"%b", line))

        assert REWRITE.head(head, body_length=length) == EXPECTED.replace(b"%b", sent).replace(b"%%", b"%")


def test_heads_that_differ_in_their_length_alone_keep_their_own():
    rewrite = RequestRewrite(host=b"up")
    for length in (1, 22, 333, 22):
        head = parse_request_head(HEAD.replace(b"%b", b"Content-Length: %d" % length))

        assert head.content_length == length
        assert head.get(b"content-length") == b"%d" % length
        assert b"Content-Length: %d\r\n" % length in rewrite.head(head, body_length=length)


def test_a_remembered_head_is_sent_with_each_requests_own_length():
    rewrite = RequestRewrite(host=b"up")
    head = parse_request_head(HEAD.replace(b"%b", b"Content-Length: 3"))

    sent = [rewrite.head(one, body_length=length) for one, length in ((head, 3), (head.with_length(70), 70))]

    assert sent[1] == sent[0].replace(b"Content-Length: 3\r\n", b"Content-Length: 70\r\n")


def test_a_head_is_kept_in_its_form_for_a_few_endpoints_only():
    head = parse_request_head(HEAD.replace(b"%b", b"Content-Length: 3"))

    for number in range(3 * MAX_MEMO):
        assert b"host: h%d\r\n" % number in RequestRewrite(host=b"h%d" % number).head(head, body_length=3)

    assert len(head.memo) == MAX_MEMO


def test_two_endpoints_each_get_their_own_head():
    one, two = RequestRewrite(host=b"one"), RequestRewrite(host=b"two")
    head = parse_request_head(HEAD.replace(b"%b", b"Content-Length: 3"))

    sent = [rewrite.head(head, body_length=3) for rewrite in (one, two, one)]

    assert [b"host: one" in each for each in sent] == [True, False, True]


def test_an_http_1_0_request_gets_the_host_it_lacks():
    head = parse_request_head(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")

    assert (
        RequestRewrite(host=b"up").head(head, body_length=0) == b"GET / HTTP/1.1\r\nHost: up\r\nX: y\r\n\r\n"
    )


def test_an_answer_head_keeps_its_lines_and_takes_ours_behind():
    raw = (
        b"HTTP/1.0 200 Fine\r\nDate: x\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Connection: close\r\n\r\n"
    )
    answer = parse_answer_head(raw, method=b"GET")

    sent = answer_head(
        answer, passes_chunks=False, authors_chunks=True, connection=b"close", extra=b"X: 1\r\n"
    )

    assert sent == (
        b"HTTP/1.1 200 Fine\r\nDate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\nX: 1\r\n\r\n"
    )


@pytest.mark.parametrize("keeps_length", [True, False])
def test_a_remembered_answer_head_gets_each_answers_own_length(keeps_length):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length:  3 \r\nX: y\r\n\r\n"
    answer = parse_answer_head(raw, method=b"GET")

    sent = [
        answer_head(
            one, passes_chunks=False, authors_chunks=False, keeps_length=keeps_length, extra=b"Z: 1\r\n"
        )
        for one in (answer, answer.with_length(70), answer)
    ]

    lines = [b"Content-Length:  %d \r\n" % n if keeps_length else b"" for n in (3, 70, 3)]
    assert sent == [b"HTTP/1.1 200 OK\r\n" + line + b"X: y\r\nZ: 1\r\n\r\n" for line in lines]


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200 OK"), (b"GET", b"304 Not Modified")])
def test_a_length_that_no_body_follows_goes_on_as_it_is(method, status):
    raw = b"HTTP/1.1 " + status + b"\r\nContent-Length: 100\r\n\r\n"
    answer = parse_answer_head(raw, method=method)

    assert answer_head(answer, passes_chunks=False, authors_chunks=False) == raw
    assert answer.with_length(7).length == 0


def test_values_are_found_by_name_and_the_first_one_counts():
    head = parse_request_head(HEAD.replace(b"%b", b"Content-Length: 3"))

    assert [head.get(b"x-one"), head.get(b"x-one"), head.get(b"x-none")] == [b"1", b"1", None]
