"""Moments as text, the way JSON APIs write them."""

from datetime import UTC, datetime


def rfc3339(moment: float) -> str:
    """`2026-03-01T00:00:00Z`; with a fraction only where there is one."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
