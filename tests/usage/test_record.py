"""The two forms of a usage record."""

from datetime import UTC, datetime

import msgspec
import orjson
import pytest

from proxy.usage.record import UsageRecord, to_lines
from proxy.usage.tokens import Usage

RECORD = UsageRecord(
    id="b0-1", request_id="req-1", timestamp=datetime(2026, 1, 2, 3, 4, 5, 123456, UTC),
    model="qwen", upstream_model="Qwen/Qwen3", path="/v1/chat/completions", method="POST",
    backend="vllm-a", backend_url="http://127.0.0.1:8001", pool="default", status_code=200,
    outcome="complete", stream=True, latency_ms=1500, ttfb_ms=250, attempts=2, key_id="0a1b2c3d",
    key_name="alice", user_id="u1", usage=Usage(7, 3, 10, 4, 1), response_id="chatcmpl-1",
    tool_calls=1, session="s1",
)  # fmt: skip
BARE = UsageRecord(
    id="b0-2", request_id="req-2", timestamp=datetime(2026, 1, 2, 3, 4, 5, 0, UTC),
    model="", path="/v1/x", method="GET", backend="b", pool="default", status_code=502, outcome="error",
    latency_ms=1, incomplete=True,
)  # fmt: skip


def test_the_nested_form_keeps_the_go_llmproxys_fields():
    found = orjson.loads(RECORD.to_json())

    assert {
        "request_id": "req-1",
        "timestamp": "2026-01-02T03:04:05.123456Z",
        "user_id": "u1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "backend_url": "http://127.0.0.1:8001",
        "status_code": 200,
        "latency_ms": 1500,
    }.items() <= found.items()
    assert found["usage"] == {
        "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "cached_tokens": 4, "reasoning_tokens": 1,
    }  # fmt: skip


def test_the_nested_form_says_more_and_begins_with_the_id():
    line = RECORD.to_json()

    assert line.startswith(b'{"id":"b0-1",')
    assert {
        "key_id": "0a1b2c3d", "key_name": "alice", "model": "qwen", "upstream_model": "Qwen/Qwen3",
        "pool": "default", "backend": "vllm-a", "outcome": "complete", "stream": True, "ttfb_ms": 250,
        "attempts": 2,
        "estimated": False, "incomplete": False, "response_id": "chatcmpl-1", "tool_calls": 1,
        "session": "s1",
    }.items() <= orjson.loads(line).items()  # fmt: skip


def test_the_flat_form_keeps_the_fields_of_the_go_llmproxys_readme():
    found = orjson.loads(RECORD.to_json("flat"))

    assert {
        "request_id": "req-1", "user_id": "u1", "key_id": "0a1b2c3d", "model": "qwen", "prompt_tokens": 7,
        "completion_tokens": 3, "total_tokens": 10, "is_stream": True, "endpoint": "/v1/chat/completions",
        "timestamp": "2026-01-02T03:04:05.123456Z", "backend_url": "http://127.0.0.1:8001",
    }.items() <= found.items()  # fmt: skip
    assert "usage" not in found


def test_receivers_get_these_very_bytes():
    assert BARE.to_json() == (
        b'{"id":"b0-2","request_id":"req-2","timestamp":"2026-01-02T03:04:05Z","user_id":null,"key_id":null,'
        b'"key_name":null,"session":null,"model":"","upstream_model":null,"method":"GET","path":"/v1/x",'
        b'"stream":false,"pool":"default","backend":"b","backend_url":"","response_id":null,"status_code":502,'
        b'"outcome":"error","latency_ms":1,"ttfb_ms":null,"attempts":1,"tool_calls":0,"estimated":false,'
        b'"incomplete":true}'
    )
    assert RECORD.to_json("flat") == (
        b'{"id":"b0-1","request_id":"req-1","timestamp":"2026-01-02T03:04:05.123456Z","user_id":"u1",'
        b'"key_id":"0a1b2c3d","key_name":"alice","session":"s1","model":"qwen","upstream_model":"Qwen/Qwen3",'
        b'"method":"POST","pool":"default","backend":"vllm-a","backend_url":"http://127.0.0.1:8001",'
        b'"response_id":"chatcmpl-1","status_code":200,"outcome":"complete","latency_ms":1500,"ttfb_ms":250,'
        b'"attempts":2,"tool_calls":1,"estimated":false,"incomplete":false,"prompt_tokens":7,'
        b'"completion_tokens":3,"total_tokens":10,"cached_tokens":4,"reasoning_tokens":1,"is_stream":true,'
        b'"endpoint":"/v1/chat/completions"}'
    )


def test_each_record_is_a_line_whatever_is_in_it():
    path = "".join(map(chr, [*range(256), 0x2028, 0x2029, 0xFEFF, 0x1F600]))
    odd = msgspec.structs.replace(BARE, path=path)

    lines = to_lines([RECORD, odd, BARE]).split(b"\n")

    assert lines == [RECORD.to_json(), odd.to_json(), BARE.to_json()]
    assert orjson.loads(lines[1])["path"] == path


def test_a_record_without_counts_has_no_usage():
    assert "usage" not in orjson.loads(BARE.to_json())
    assert "prompt_tokens" not in orjson.loads(BARE.to_json("flat"))


@pytest.mark.parametrize("record", [RECORD, BARE])
def test_the_nested_form_can_be_read_again(record):
    assert UsageRecord.from_json(record.to_json()) == record


def test_fields_and_outcomes_of_another_version_are_no_hindrance():
    line = BARE.to_json().replace(b'"attempts":1,', b'"new":[1],').replace(b'"error"', b'"new"')

    assert UsageRecord.from_json(line) == msgspec.structs.replace(BARE, outcome="new")


def test_bytes_that_are_no_utf8_become_question_marks():
    path = b"/v1/\xff".decode("utf-8", "surrogateescape")

    lines = to_lines([RECORD, msgspec.structs.replace(BARE, path=path), BARE]).split(b"\n")

    assert orjson.loads(lines[1])["path"] == "/v1/?"
    assert [lines[0], lines[2]] == [RECORD.to_json(), BARE.to_json()]


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"1", b'{"id":"x"}'])
def test_what_is_no_record_is_told(line):
    with pytest.raises(ValueError):
        UsageRecord.from_json(line)


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        RECORD.model = "other"
