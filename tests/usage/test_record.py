"""The two forms of a usage record."""

import msgspec
import orjson
import pytest

from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage

RECORD = UsageRecord(
    id="b0-1", request_id="req-1", time=1_767_323_045.123456, model="qwen", upstream_model="Qwen/Qwen3",
    path="/v1/chat/completions", method="POST", backend="vllm-a", backend_url="http://127.0.0.1:8001",
    pool="default", status=200, outcome="complete", stream=True, duration=1.5, ttfb=0.25, attempts=2,
    key_id="0a1b2c3d", key_name="alice", user_id="u1", usage=Usage(7, 3, 10, 4, 1), response_id="chatcmpl-1",
    tool_calls=1, session="s1",
)  # fmt: skip
BARE = UsageRecord(
    id="b0-2", request_id="req-2", time=1_767_323_045.0, model="", path="/v1/x", method="GET", backend="b",
    pool="default", status=502, outcome="error", duration=0.001, incomplete=True,
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


def test_a_record_without_counts_has_no_usage():
    assert "usage" not in orjson.loads(BARE.to_json())
    assert "prompt_tokens" not in orjson.loads(BARE.to_json("flat"))


@pytest.mark.parametrize("record", [RECORD, BARE])
def test_the_nested_form_can_be_read_again(record):
    assert UsageRecord.from_json(record.to_json()) == record


def test_fields_of_another_version_are_left_out():
    assert UsageRecord.from_json(RECORD.to_json()[:-1] + b',"new":1}') == RECORD


def test_bytes_that_are_no_utf8_become_question_marks():
    path = b"/v1/\xff".decode("utf-8", "surrogateescape")

    line = msgspec.structs.replace(BARE, path=path).to_json()

    assert orjson.loads(line)["path"] == "/v1/?"


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"1", b'{"id":"x"}'])
def test_what_is_no_record_is_told(line):
    with pytest.raises((KeyError, TypeError, ValueError)):
        UsageRecord.from_json(line)


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        RECORD.model = "other"
