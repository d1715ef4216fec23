"""A usage record as a row, for sinks that are tables."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from proxy.usage.record import UsageRecord

TABLE = "usage_records"

# Text that a client chose is cut to what the columns hold: the longest model names have
# some 100 characters, request targets in use some 200.
MAX_NAME = 255
MAX_PATH = 1024


def row(line: bytes) -> dict[str, Any]:
    """By column; `timestamp` is a datetime without zone, in UTC."""
    record = UsageRecord.from_json(line)
    usage = record.usage or None
    return {
        "id": record.id,
        "request_id": _text(record.request_id),
        "timestamp": record.timestamp.astimezone(UTC).replace(tzinfo=None),
        "user_id": _cut(record.user_id),
        "key_id": _cut(record.key_id),
        "key_name": _cut(record.key_name),
        "session": _cut(record.session),
        "model": _text(record.model),
        "upstream_model": _cut(record.upstream_model),
        "method": _text(record.method),
        "path": _text(record.path, MAX_PATH),
        "is_stream": record.stream,
        "pool": record.pool,
        "backend": record.backend,
        "backend_url": record.backend_url,
        "response_id": _cut(record.response_id),
        "status_code": record.status_code,
        "outcome": record.outcome,
        "latency_ms": record.latency_ms,
        "ttfb_ms": record.ttfb_ms,
        "attempts": record.attempts,
        "tool_calls": record.tool_calls,
        "prompt_tokens": usage and usage.prompt,
        "completion_tokens": usage and usage.completion,
        "total_tokens": usage and usage.total,
        "cached_tokens": usage and usage.cached,
        "reasoning_tokens": usage and usage.reasoning,
        "estimated": record.estimated,
        "incomplete": record.incomplete,
    }


def readable_rows(lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The rows, and the lines that are none (written by a version with other fields)."""
    rows, unreadable = [], []
    for line in lines:
        try:
            rows.append(row(line))
        except ValueError:
            unreadable.append(line)
    return rows, unreadable


def _text(text: str, length: int = MAX_NAME) -> str:
    """Cut to the column, and without the one character that PostgreSQL has no place for."""
    return text[:length].replace("\0", "\ufffd")


def _cut(text: str | None) -> str | None:
    return None if text is None else _text(text)
