"""What two parsers could read differently is refused, or arrives so that none can.

Every probe is followed on the same connection by a request for `/v1/smuggled`.
Where the probe must be refused, neither it nor that request may reach the
upstream. Where RFC 9112 allows it to be understood, the upstream must see
exactly as many clean requests as the client sees answers.
"""

import asyncio

import pytest
from kit.client import RawClient
from kit.gateway import settings
from kit.judge import SMUGGLED, SMUGGLED_TARGET, verdict_on
from kit.wire import chunked, lines

POST = "POST /v1/first HTTP/1.1"

# The upstream's answer, told from the pages of the gateway's own.
FROM_UPSTREAM = b'{"ok":true}'


def with_length(*headers, body=b"hello", line=POST):
    return lines(line, *headers, "Host: h") + body


def with_chunks(body, *headers, line=POST, coding=b"Transfer-Encoding: chunked"):
    return lines(line, "Host: h", *headers, coding) + body


def in_head(*headers):
    return lines("GET /v1/first HTTP/1.1", "Host: h", *headers)


def first_line(line):
    return lines(line, "Host: h")


GOOD = chunked(b"hello")

REFUSED = {
    # lengths
    "length plus": with_length("Content-Length: +5"),
    "length minus": with_length("Content-Length: -5"),
    "length minus zero": with_length("Content-Length: -0", body=b""),
    "length hex": with_length("Content-Length: 0x5"),
    "length float": with_length("Content-Length: 5.0"),
    "length exponent": with_length("Content-Length: 5e0"),
    "length underscore": with_length("Content-Length: 1_0", body=b"helloworld"),
    "length list": with_length("Content-Length: 5, 5"),
    "length list different": with_length("Content-Length: 5,6"),
    "length list empty": with_length("Content-Length: 5,"),
    "length with blank": with_length("Content-Length: 5 5"),
    "length empty": with_length("Content-Length:", body=b""),
    "length blank": with_length("Content-Length:  \t ", body=b""),
    "length word": with_length("Content-Length: five"),
    "length semicolon": with_length("Content-Length: 5;"),
    "length quoted": with_length('Content-Length: "5"'),
    "length arabic digit": with_length("Content-Length: \u0665".encode()),
    "length superscript": with_length(b"Content-Length: \xb5\xb2"),
    "length of 2^64": with_length("Content-Length: 18446744073709551616"),
    "length of 2^64 plus 5": with_length("Content-Length: 18446744073709551621"),
    "length of 400 digits": with_length("Content-Length: " + "9" * 400),
    "length vertical tab": with_length(b"Content-Length: \x0b5"),
    "length form feed": with_length(b"Content-Length: 5\x0c"),
    "length nul": with_length(b"Content-Length: 5\x00"),
    "length no-break space": with_length(b"Content-Length: \xa05"),
    "two lengths": with_length("Content-Length: 5", "Content-Length: 6"),
    "two equal lengths": with_length("Content-Length: 5", "Content-Length: 5"),
    "two lengths in other case": with_length("Content-Length: 5", "content-length: 0"),
    "length with space before colon": with_length("Content-Length : 5"),
    "length with tab before colon": with_length("Content-Length\t: 5"),
    "length folded": with_length("Content-Length:\r\n 5"),
    "length behind a fold": with_length("X: y\r\n Content-Length: 5"),
    # length and coding
    "length then coding": with_length("Content-Length: 5", "Transfer-Encoding: chunked", body=GOOD),
    "coding then length": with_length("Transfer-Encoding: chunked", "Content-Length: 5", body=GOOD),
    "length zero and coding": with_length("Content-Length: 0", "Transfer-Encoding: chunked", body=GOOD),
    "length and identity": with_length("Content-Length: 5", "Transfer-Encoding: identity"),
    # codings
    "coding unknown": with_chunks(GOOD, coding="Transfer-Encoding: xchunked"),
    "coding with tail": with_chunks(GOOD, coding="Transfer-Encoding: chunkedx"),
    "coding twice in a list": with_chunks(GOOD, coding="Transfer-Encoding: chunked, chunked"),
    "coding twice in two lines": with_chunks(GOOD, "Transfer-Encoding: chunked"),
    "coding gzip before": with_chunks(GOOD, coding="Transfer-Encoding: gzip, chunked"),
    "coding gzip after": with_chunks(GOOD, coding="Transfer-Encoding: chunked, gzip"),
    "coding gzip in its own line": with_chunks(GOOD, "Transfer-Encoding: gzip"),
    "coding identity": with_chunks(b"", coding="Transfer-Encoding: identity"),
    "coding identity then chunked": with_chunks(GOOD, coding="Transfer-Encoding: identity, chunked"),
    "coding parameter": with_chunks(GOOD, coding="Transfer-Encoding: chunked;q=1"),
    "coding quoted": with_chunks(GOOD, coding='Transfer-Encoding: "chunked"'),
    "coding empty": with_chunks(b"", coding="Transfer-Encoding:"),
    "coding comma before": with_chunks(GOOD, coding="Transfer-Encoding: ,chunked"),
    "coding comma after": with_chunks(GOOD, coding="Transfer-Encoding: chunked,"),
    "coding vertical tab": with_chunks(GOOD, coding=b"Transfer-Encoding: \x0bchunked"),
    "coding form feed": with_chunks(GOOD, coding=b"Transfer-Encoding: chunked\x0c"),
    "coding nul": with_chunks(GOOD, coding=b"Transfer-Encoding: chunked\x00"),
    "coding high byte": with_chunks(GOOD, coding=b"Transfer-Encoding: chunked\xff"),
    "coding bare cr": with_chunks(GOOD, coding=b"Transfer-Encoding: \rchunked"),
    "coding folded": with_chunks(GOOD, coding="Transfer-Encoding:\r\n chunked"),
    "coding folded with length": with_chunks(
        GOOD, "Content-Length: 5", coding="Transfer-Encoding:\r\n\tchunked"
    ),
    "coding with space before colon": with_chunks(GOOD, coding="Transfer-Encoding : chunked"),
    "coding with nul in name": with_chunks(GOOD, coding=b"Transfer-Encoding\x00: chunked"),
    "coding with cr in name": with_chunks(GOOD, coding=b"Transfer-Encoding\r: chunked"),
    "coding behind a bare lf": with_chunks(GOOD, coding=b"X: y\nTransfer-Encoding: chunked"),
    "coding behind a bare cr": with_chunks(GOOD, coding=b"X: y\rTransfer-Encoding: chunked"),
    "coding in HTTP/1.0": with_chunks(GOOD, line="POST /v1/first HTTP/1.0"),
    # chunks
    "chunk size hex prefix": with_chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size plus": with_chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size minus": with_chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size underscore": with_chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "chunk size word": with_chunks(b"five\r\nhello\r\n0\r\n\r\n"),
    "chunk size empty": with_chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size blank before": with_chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunk size tab before": with_chunks(b"\t5\r\nhello\r\n0\r\n\r\n"),
    "chunk size 2^64": with_chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size all f": with_chunks(b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    "chunk size 300 zeros": with_chunks(b"0" * 300 + b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk size nul": with_chunks(b"5\x00\r\nhello\r\n0\r\n\r\n"),
    "chunk size bare lf": with_chunks(b"5\nhello\r\n0\r\n\r\n"),
    "chunk size bare cr": with_chunks(b"5\rhello\r\n0\r\n\r\n"),
    "chunk size cr cr lf": with_chunks(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "chunk size arabic": with_chunks("\u0665\r\nhello\r\n0\r\n\r\n".encode()),
    "chunk end missing": with_chunks(b"5\r\nhello0\r\n\r\n"),
    "chunk end lf": with_chunks(b"5\r\nhello\n0\r\n\r\n"),
    "chunk end cr": with_chunks(b"5\r\nhello\r0\r\n\r\n"),
    "chunk end other": with_chunks(b"5\r\nhelloXX0\r\n\r\n"),
    "chunk too short": with_chunks(b"3\r\nhello\r\n0\r\n\r\n"),
    "chunk extension bare lf": with_chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "chunk extension bare cr": with_chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "chunk extension nul": with_chunks(b"5;a=\x00\r\nhello\r\n0\r\n\r\n"),
    "chunk extension without semicolon": with_chunks(b"5 a=b\r\nhello\r\n0\r\n\r\n"),
    "chunk extension endless": with_chunks(b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "last chunk bare lf": with_chunks(b"5\r\nhello\r\n0\n\n"),
    "trailer bare lf": with_chunks(b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n"),
    "trailer nul": with_chunks(b"5\r\nhello\r\n0\r\nX: a\x00\r\n\r\n"),
    "trailer without colon": with_chunks(b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
    "trailer folded": with_chunks(b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
    "trailer name with space": with_chunks(b"5\r\nhello\r\n0\r\nX : a\r\n\r\n"),
    "trailer endless": with_chunks(b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n"),
    # line ends and control bytes
    "head of bare lf": b"GET /v1/first HTTP/1.1\nHost: h\n\n",
    "one bare lf": b"GET /v1/first HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "one bare cr": b"GET /v1/first HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
    "request line bare lf": b"GET /v1/first HTTP/1.1\nHost: h\r\n\r\n",
    "request line cr cr lf": b"GET /v1/first HTTP/1.1\r\r\nHost: h\r\n\r\n",
    "end of bare lf": b"GET /v1/first HTTP/1.1\r\nHost: h\r\n\n",
    "end of lf cr": b"GET /v1/first HTTP/1.1\r\nHost: h\r\n\n\r",
    "bare lf in a value": in_head(b"X: a\nb"),
    "bare cr in a value": in_head(b"X: a\rb"),
    "cr at the end of a value": in_head(b"X: a\r"),
    "nul in a value": in_head(b"X: a\x00b"),
    "bell in a value": in_head(b"X: a\x07b"),
    "escape in a value": in_head(b"X: \x1b[0m"),
    "delete in a value": in_head(b"X: \x7f"),
    "folded line": in_head(b"X: a\r\n b"),
    "folded with tab": in_head(b"X: a\r\n\tb"),
    "folded first header": b"GET /v1/first HTTP/1.1\r\n Host: h\r\n\r\n",
    "line of blanks": in_head(b" "),
    "space in a name": in_head("X Y: a"),
    "space before colon": in_head("X : a"),
    "tab before colon": in_head("X\t: a"),
    "space before name": in_head(" X: a"),
    "empty name": in_head(": a"),
    "no colon": in_head("X"),
    "bracket in a name": in_head("X(Y): a"),
    "quote in a name": in_head('X"Y: a'),
    "slash in a name": in_head("X/Y: a"),
    "at in a name": in_head("X@Y: a"),
    "high byte in a name": in_head(b"X\xe9: a"),
    "nul in a name": in_head(b"X\x00: a"),
    "control in a name": in_head(b"X\x01: a"),
    # request lines
    "two spaces after the method": first_line("GET  /v1/first HTTP/1.1"),
    "two spaces before the version": first_line("GET /v1/first  HTTP/1.1"),
    "tab after the method": first_line("GET\t/v1/first HTTP/1.1"),
    "tab before the version": first_line("GET /v1/first\tHTTP/1.1"),
    "space after the version": first_line("GET /v1/first HTTP/1.1 "),
    "space before the method": first_line(" GET /v1/first HTTP/1.1"),
    "space in the target": first_line("GET /v1/fi rst HTTP/1.1"),
    "space in the version": first_line("GET /v1/first HTTP /1.1"),
    "no version": first_line("GET /v1/first"),
    "no target": first_line("GET HTTP/1.1"),
    "only a method": first_line("GET"),
    "empty target": first_line("GET  HTTP/1.1"),
    "nul in the target": first_line(b"GET /v1/\x00 HTTP/1.1"),
    "control in the target": first_line(b"GET /v1/\x01 HTTP/1.1"),
    "tab in the target": first_line(b"GET /v1/a\tb HTTP/1.1"),
    "delete in the target": first_line(b"GET /v1/\x7f HTTP/1.1"),
    "fragment": first_line("GET /v1/first#frag HTTP/1.1"),
    "relative target": first_line("GET v1/first HTTP/1.1"),
    "question target": first_line("GET ?v1/first HTTP/1.1"),
    "asterisk": first_line("GET * HTTP/1.1"),
    "authority target": first_line("GET h:80 HTTP/1.1"),
    "connect": first_line("CONNECT h:80 HTTP/1.1"),
    "connect with path": first_line("CONNECT /v1/first HTTP/1.1"),
    "nul in the method": first_line(b"G\x00T /v1/first HTTP/1.1"),
    "bracket in the method": first_line("G(T /v1/first HTTP/1.1"),
    "slash in the method": first_line("GET/ /v1/first HTTP/1.1"),
    "colon in the method": first_line("GET: /v1/first HTTP/1.1"),
    "high byte in the method": first_line(b"G\xc9T /v1/first HTTP/1.1"),
    # versions
    "HTTP/0.9 line": b"GET /v1/first\r\n",
    "HTTP/0.9": first_line("GET /v1/first HTTP/0.9"),
    "HTTP/1.2": first_line("GET /v1/first HTTP/1.2"),
    "HTTP/1.9": first_line("GET /v1/first HTTP/1.9"),
    "HTTP/1.10": first_line("GET /v1/first HTTP/1.10"),
    "HTTP/1.": first_line("GET /v1/first HTTP/1."),
    "HTTP/1": first_line("GET /v1/first HTTP/1"),
    "HTTP/01.1": first_line("GET /v1/first HTTP/01.1"),
    "HTTP/1.01": first_line("GET /v1/first HTTP/1.01"),
    "HTTP/11": first_line("GET /v1/first HTTP/11"),
    "HTTP/2.0": first_line("GET /v1/first HTTP/2.0"),
    "HTTP/3": first_line("GET /v1/first HTTP/3"),
    "lower case version": first_line("GET /v1/first http/1.1"),
    "mixed case version": first_line("GET /v1/first Http/1.1"),
    "other protocol": first_line("GET /v1/first HTTPS/1.1"),
    "icy": first_line("GET /v1/first ICY/1.1"),
    "version with minus": first_line("GET /v1/first HTTP/1.-1"),
    "version with comma": first_line("GET /v1/first HTTP/1,1"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(32)) + b"\r\n\r\n",
    "answer instead of a request": b"HTTP/1.1 200 OK\r\nHost: h\r\n\r\n",
    # hosts
    "no host": lines("GET /v1/first HTTP/1.1"),
    "two hosts": in_head("Host: other"),
    "two equal hosts": in_head("Host: h"),
    "host with space": lines("GET /v1/first HTTP/1.1", "Host: a b"),
    "host with tab": lines("GET /v1/first HTTP/1.1", "Host: a\tb"),
    "host with comma": lines("GET /v1/first HTTP/1.1", "Host: a, b"),
    "host with slash": lines("GET /v1/first HTTP/1.1", "Host: a/b"),
    "host with backslash": lines("GET /v1/first HTTP/1.1", "Host: a\\b"),
    "host with at": lines("GET /v1/first HTTP/1.1", "Host: user@a"),
    "host with question": lines("GET /v1/first HTTP/1.1", "Host: a?b"),
    "host with hash": lines("GET /v1/first HTTP/1.1", "Host: a#b"),
    "host with scheme": lines("GET /v1/first HTTP/1.1", "Host: http://a"),
    "host with brackets": lines("GET /v1/first HTTP/1.1", "Host: a[b]"),
    "host with angle": lines("GET /v1/first HTTP/1.1", "Host: <script>"),
    "host with quote": lines("GET /v1/first HTTP/1.1", 'Host: "a"'),
    "host with high byte": lines("GET /v1/first HTTP/1.1", b"Host: \xe9"),
    "host with nul": lines("GET /v1/first HTTP/1.1", b"Host: a\x00"),
    "host with word as port": lines("GET /v1/first HTTP/1.1", "Host: a:b"),
    "host with two ports": lines("GET /v1/first HTTP/1.1", "Host: a:1:2"),
    "host with minus port": lines("GET /v1/first HTTP/1.1", "Host: a:-1"),
    "host open bracket": lines("GET /v1/first HTTP/1.1", "Host: [::1"),
    "host with junk behind bracket": lines("GET /v1/first HTTP/1.1", "Host: [::1]x"),
    "host folded": lines("GET /v1/first HTTP/1.1", "Host:\r\n h"),
    "host with space before colon": lines("GET /v1/first HTTP/1.1", "Host : h"),
    "absolute form, other host": lines("GET http://other/v1/first HTTP/1.1", "Host: h"),
    "absolute form, other port": lines("GET http://h:81/v1/first HTTP/1.1", "Host: h:80"),
    "absolute form, user": lines("GET http://u@h/v1/first HTTP/1.1", "Host: h"),
    "absolute form, no authority": lines("GET http:///v1/first HTTP/1.1", "Host: h"),
    "absolute form, other scheme": lines("GET ftp://h/v1/first HTTP/1.1", "Host: h"),
    "absolute form, file": lines("GET file:///etc/passwd HTTP/1.1", "Host: h"),
    "absolute form, two slashes missing": lines("GET http:/v1/first HTTP/1.1", "Host: h"),
    # sizes
    "request line of 70 kB": first_line("GET /v1/" + "x" * 70_000 + " HTTP/1.1"),
    "method of 70 kB": first_line("G" * 70_000 + " /v1/first HTTP/1.1"),
    "header of 200 kB": in_head("X: " + "y" * 200_000),
    "10,000 headers": in_head(*(f"X-{number}: y" for number in range(10_000))),
    "name of 100 kB": in_head("X" * 100_000 + ": y"),
    # expectations
    "unknown expectation": with_length("Expect: 200-ok", "Content-Length: 5"),
}

UNDERSTOOD_OR_REFUSED = {
    "length with zeros": with_length("Content-Length: 0005"),
    "length with white space": with_length("Content-Length: \t 5 \t"),
    "length misspelt with underscore": with_length("Content_Length: 50", "Content-Length: 5"),
    "coding misspelt with underscore": with_length("Transfer_Encoding: chunked", "Content-Length: 5"),
    "coding in capitals": with_chunks(GOOD, coding="Transfer-Encoding: CHUNKED"),
    "coding name in capitals": with_chunks(GOOD, coding="TRANSFER-ENCODING: chunked"),
    "coding with white space": with_chunks(GOOD, coding="Transfer-Encoding: \t chunked \t"),
    "chunk extension": with_chunks(b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
    "chunk extension with quotes": with_chunks(b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'),
    "chunk extension with blanks": with_chunks(b"5 ; a = b\r\nhello\r\n0\r\n\r\n"),
    "chunk size with blank behind": with_chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size with zeros": with_chunks(b"0005\r\nhello\r\n000\r\n\r\n"),
    "trailer": with_chunks(b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"),
    "trailer with a length": with_chunks(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
    "trailer with a coding": with_chunks(b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailer with a host": with_chunks(b"5\r\nhello\r\n0\r\nHost: other\r\n\r\n"),
    "trailer with a key": with_chunks(b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"),
    "te trailers": with_length("TE: trailers", "Connection: TE", "Content-Length: 5"),
    "connection hides the length": with_length("Connection: Content-Length", "Content-Length: 5"),
    "connection hides the coding": with_chunks(GOOD, "Connection: Transfer-Encoding"),
    "connection hides the host": in_head("Connection: Host"),
    "upgrade websocket": in_head(
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ),
    "upgrade h2c": in_head(
        "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAA"
    ),
    "upgrade with a body": with_length("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 5"),
    "empty line first": b"\r\n" + in_head(),
    "empty lines first": b"\r\n\r\n\r\n" + in_head(),
    "get with a body": with_length("Content-Length: 5", line="GET /v1/first HTTP/1.1"),
    "head with a body": with_length("Content-Length: 5", line="HEAD /v1/first HTTP/1.1"),
    "delete with chunks": with_chunks(GOOD, line="DELETE /v1/first HTTP/1.1"),
    "options asterisk": first_line("OPTIONS * HTTP/1.1"),
    "absolute form": lines("GET http://h/v1/first HTTP/1.1", "Host: h"),
    "absolute form in capitals": lines("GET HTTP://H/v1/first HTTP/1.1", "Host: h"),
    "absolute form with https": lines("GET https://h/v1/first HTTP/1.1", "Host: h"),
    "absolute form without a path": lines("GET http://h HTTP/1.1", "Host: h"),
    "absolute form with a query only": lines("GET http://h?v1/first HTTP/1.1", "Host: h"),
    "host with port": lines("GET /v1/first HTTP/1.1", "Host: h:8000"),
    "host with large port": lines("GET /v1/first HTTP/1.1", "Host: h:99999"),
    "host with empty port": lines("GET /v1/first HTTP/1.1", "Host: h:"),
    "host of an address": lines("GET /v1/first HTTP/1.1", "Host: [::1]:8000"),
    "host with underscore": lines("GET /v1/first HTTP/1.1", "Host: my_host"),
    "host empty": lines("GET /v1/first HTTP/1.1", "Host:"),
    "host in HTTP/1.0 missing": lines("GET /v1/first HTTP/1.0", "Connection: keep-alive"),
    "length in HTTP/1.0": with_length(
        "Content-Length: 5", "Connection: keep-alive", line="POST /v1/first HTTP/1.0"
    ),
    "post without a length": lines(POST, "Host: h"),
    "dots leave the prefix": first_line("GET /v1/../admin HTTP/1.1"),
    "encoded dots": first_line("GET /v1/%2e%2e/admin HTTP/1.1"),
    "encoded line end in the target": first_line("GET /v1/%0d%0aX:%20y HTTP/1.1"),
    "expectation": with_length("Expect: 100-continue", "Content-Length: 5"),
    "expectation in capitals": with_length("Expect: 100-Continue", "Content-Length: 5"),
    "expectation without a body": in_head("Expect: 100-continue"),
    "override of the method": in_head("X-HTTP-Method-Override: DELETE"),
    "override of the target": in_head("X-Original-URL: /admin", "X-Rewrite-URL: /admin"),
    "lengths of other names": with_length("Content-Length: 5", "X-Content-Length: 50", "Content-Length-X: 9"),
    "key in a smuggled header name": in_head("Authorization: Bearer a", "authorization: Bearer b"),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_what_is_ambiguous_is_refused_and_the_connection_closed(port, upstream, raw):
    verdict = await verdict_on(port, raw + SMUGGLED)

    assert verdict.is_refused, (verdict.statuses, verdict.ending, verdict.leftover)
    assert upstream.requests == []
    assert upstream.unfinished == []


@pytest.fixture
def hasty(gateways, upstream):
    """A gateway that soon gives up on what does not come, so that silence is a verdict."""
    return gateways.get(
        settings(gateways.backend_port, server={"read_timeout": "400ms", "idle_timeout": "400ms"})
    ).port


@pytest.mark.parametrize("raw", UNDERSTOOD_OR_REFUSED.values(), ids=UNDERSTOOD_OR_REFUSED)
async def test_what_may_be_understood_is_understood_in_one_way(hasty, upstream, raw):
    methods = (raw.lstrip(b"\r\n").split(b" ", 1)[0],)

    verdict = await verdict_on(hasty, raw + SMUGGLED, methods=methods)

    assert not [status for status in verdict.statuses if status >= 500], verdict.statuses
    assert all(answer.is_complete for answer in verdict.answers)
    assert verdict.leftover == b""
    served = sum(answer.body == FROM_UPSTREAM for answer in verdict.answers)
    heads = sum(
        answer.status == 200 and method == b"HEAD"
        for answer, method in zip(verdict.answers, methods, strict=False)
    )
    assert len(upstream.requests) == served + heads
    for request in upstream.requests:
        assert request.target == SMUGGLED_TARGET or request.body in (b"", b"hello")
        assert request.target.startswith(b"/") or request.target == b"*"
    behind = [request for request in upstream.requests if request.target == SMUGGLED_TARGET]
    assert len(behind) <= 1
    if served + heads == 0:
        assert behind == []


async def test_nothing_behind_a_refusal_is_served(port, upstream):
    verdict = await verdict_on(port, SMUGGLED + in_head("X : y") + SMUGGLED * 5)

    assert verdict.statuses == [200, 400]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "prefix", [b"\x00", b"\x80\x2e\x01\x00\x02", b"\x04\x01\x00\x50", b"SSH-2.0-x\r\n", b"\xff" * 99]
)
async def test_other_protocols_are_sent_away(hasty, upstream, prefix):
    verdict = await verdict_on(hasty, prefix + SMUGGLED)

    assert verdict.is_refused
    assert upstream.requests == []


@pytest.mark.parametrize("cut", [1, 4, 8, 12])
async def test_a_disguise_is_seen_through_however_it_is_cut(port, upstream, cut):
    """The same refusals when the bytes come in small pieces: parsers that look back are easily fooled."""

    chosen = [raw for raw in REFUSED.values() if len(raw) < 400]

    async def drip(raw):
        async with await RawClient.connect(port) as client:
            for start in range(0, len(raw), cut):
                client.write(raw[start : start + cut])
                await asyncio.sleep(0)
            client.write(SMUGGLED)
            await client.wait_end()
            return bytes(client.received)

    received = await asyncio.gather(*(drip(raw) for raw in chosen))

    accepted = [raw for raw, got in zip(chosen, received, strict=True) if b"HTTP/1.1 2" in got]
    assert accepted == []
    assert upstream.requests == []
