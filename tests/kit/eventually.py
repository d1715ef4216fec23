"""Wait for something that only the outside of another process shows."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from kit.link import PATIENCE


async def eventually(
    holds: Callable[[], bool | Awaitable[bool]], what: str, patience: float = PATIENCE
) -> float:
    """Look until it holds; returns the seconds it took, fails with `what` after `patience`."""
    begun = monotonic()
    while True:
        seen = holds()
        if seen if isinstance(seen, bool) else await seen:
            return monotonic() - begun
        if monotonic() - begun > patience:
            raise AssertionError(f"still not so after {patience} s: {what}")
        await asyncio.sleep(0.02)
