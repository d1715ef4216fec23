"""The right meter for a head, and compressed answers."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.usage.choose import meter_for
from proxy.usage.inflate import FREE_BYTES, InflatingMeter
from proxy.usage.json_meter import JsonMeter
from proxy.usage.meter import Metered
from proxy.usage.tokens import Usage

JSON = b'{"id":"c","usage":{"prompt_tokens":7,"completion_tokens":3}}'
SSE = b"data: " + JSON + b"\n\ndata: [DONE]\n\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"application/json", JSON),
        (b"Application/JSON; charset=utf-8", JSON),
        (b"application/problem+json", JSON),
        (b"text/event-stream", SSE),
        (b"text/event-stream;charset=utf-8", SSE),
        (b"text/plain", SSE),
        (b"text/plain", b"\n " + JSON),
        (b"", SSE),
        (b"", b": comment\n\n" + SSE),
    ],
)
def test_the_meter_fits_the_type_or_the_first_byte(content_type, body):
    meter = meter_for(content_type)
    for at in range(len(body)):
        meter.feed(body[at : at + 1])

    assert meter.finish().usage == Usage(7, 3, 10)
    assert meter.events == (2 if b"data:" in body else 0)


@pytest.mark.parametrize(
    ("content_type", "coding"), [(b"audio/mpeg", b""), (b"application/json", b"br"), (b"", b"")]
)
def test_what_cannot_be_read_is_not_metered(content_type, coding):
    meter = meter_for(content_type, coding)
    if content_type:
        meter.feed(JSON)

    assert (meter.finish(), meter.events) == (Metered(), 0)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZIP ", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", raw_deflate),
        (b"gzip", lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:])),
        (b"gzip", lambda data: gzip.compress(data) + b"rubbish behind the end"),
        (b"identity", bytes),
    ],
)
@pytest.mark.parametrize("cut", [1, 2, 3, 10**6])
def test_compressed_answers_are_metered_at_any_cut(coding, pack, cut):
    body = pack(SSE)
    meter = meter_for(b"text/event-stream", coding)
    for at in range(0, len(body), cut):
        meter.feed(body[at : at + cut])

    found = meter.finish()

    assert (found.usage, found.terminal, found.events) == (Usage(7, 3, 10), True, 1)
    assert meter.events == 2


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 20), st.sampled_from([b"gzip", b"deflate"]))
def test_a_body_that_only_claims_to_be_compressed_never_raises(body, cut, coding):
    meter = meter_for(b"application/json", coding)
    for at in range(0, len(body), cut):
        meter.feed(body[at : at + cut])

    assert meter.finish().usage is None


def test_a_cut_compressed_stream_is_metered_up_to_the_cut():
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(SSE) + packer.flush(zlib.Z_SYNC_FLUSH)
    meter = meter_for(b"text/event-stream", b"gzip")
    meter.feed(body)

    assert meter.finish().usage == Usage(7, 3, 10)


def test_a_bomb_is_left_alone():
    bomb = gzip.compress(b" " * (64 * FREE_BYTES) + JSON)
    meter = meter_for(b"application/json", b"gzip")
    meter.feed(bomb)
    meter.feed(b"more")

    assert isinstance(meter, InflatingMeter)
    assert meter.finish() == Metered()
    assert meter._inflated < 8 * FREE_BYTES


def test_a_long_answer_that_compresses_well_is_no_bomb():
    body = gzip.compress(
        b'{"choices":[{"message":{"content":"' + b"word and more " * 20_000 + b'"}}],' + JSON[8:]
    )
    meter = InflatingMeter(JsonMeter(), b"gzip")
    meter.feed(body)

    assert meter.finish().usage == Usage(7, 3, 10)
