"""A scripted upstream of each test's own, and gateways in either event loop."""

from collections.abc import AsyncIterator

import pytest
from kit.upstream import ScriptedUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Answers every request with a small JSON body until a test says otherwise."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_environ(request: pytest.FixtureRequest) -> dict[str, str]:
    """For tests that hold in both event loops."""
    return {"LLMPROXY_LOOP": request.param}
