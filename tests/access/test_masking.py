"""Keys in paths."""

import pytest

from proxy.access.masking import masked

KEY = b"a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"  # of a maker whose keys look like nothing in particular

STAY = [
    b"/v1/chat/completions",
    b"/",
    b"//",
    b"*",
    b"/v1/models/Qwen/Qwen3-Coder-480B-A35B-Instruct",
    b"/v1/models/task-distilled-large-7b-instruct",
    b"/v1/responses/resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    b"/v1/files/file-abc123abc123abc123abc123/content",
    b"/v1/batches/0193a1c2d3e4f5a6b7c8d9e0f1a2b3c4/cancel",
    b"/v1/sk-short",
    b"/v1/%2F..%00/x",
]

GO = [
    (b"/v1/sk-canary-5d1c0ffee5d1c0ffee/models", b"/v1/***/models"),
    (b"/v1/%73k-canary-5d1c0ffee5d1c0ffee/models", b"/v1/***/models"),
    (b"/sk%2Dproj%2Dcanary5d1c0ffee5d1c0ffee", b"/***"),
    (b"/api_key=sk-canary-5d1c0ffee5d1c0ffee", b"/***"),
    (b"/v1;key=gsk_5d1c0ffee5d1c0ffee/x", b"/***/x"),
    (b"/hf_abcdefghijklmnopqrst/AIzaSyA1234567890abcdefg", b"/***/***"),
    (b"/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", b"/***"),
    (b"/Bearer%20sk-canary-5d1c0ffee5d1c0ffee", b"/***"),
]


@pytest.mark.parametrize("path", STAY)
def test_an_ordinary_path_stays(path):
    assert masked(path, [(b"authorization", b"Bearer " + KEY), (b"cookie", b"")]) == path


@pytest.mark.parametrize(("path", "shown"), GO)
def test_what_looks_like_a_key_goes(path, shown):
    assert masked(path, []) == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer " + KEY),
        (b"authorization", KEY),
        (b"x-api-key", KEY),
        (b"x-my-token", KEY),
    ],
)
def test_what_the_request_presents_as_its_key_goes_whatever_it_looks_like(name, value):
    assert masked(b"/v1/" + KEY + b"/x", [(b"host", b"h"), (name, value)]) == b"/v1/***/x"
    assert masked(b"/v1/key=" + KEY, [(name, value)]) == b"/v1/***"
    assert masked(b"/v1/%61" + KEY[1:], [(name, value)]) == b"/v1/***"


def test_other_headers_hide_nothing():
    assert masked(b"/v1/threads/thread-4711", [(b"x-session", b"thread-4711")]) == b"/v1/threads/thread-4711"
