"""The upstream behind the shared gateway, new for each probe, and an end to probes that hang."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from types import FrameType

import pytest
from kit.gateway import Gateway
from kit.upstream import ScriptedUpstream

# Far above the slowest probe (5 s on an idle machine), and what the numbers that can be raised may add.
LONGEST = 300 + round(
    10 * int(os.environ.get("LLMPROXY_KILLS", "0"))
    + 0.1 * int(os.environ.get("LLMPROXY_DELIVERIES", "0"))
    + 0.1 * int(os.environ.get("LLMPROXY_MUTATIONS", "0"))
)


@pytest.fixture(autouse=True)
def no_probe_hangs() -> Iterator[None]:
    """A gateway that stands still fails the probe instead of the whole run."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"this probe hangs: given up after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
async def upstream(backend_port: int) -> AsyncIterator[ScriptedUpstream]:
    """Answers every request with a small JSON body until a probe says otherwise; unclean requests fail."""
    async with ScriptedUpstream(port=backend_port) as scripted:
        yield scripted
    assert scripted.unclean == []


@pytest.fixture
def port(gateway: Gateway, upstream: ScriptedUpstream) -> int:
    """The shared gateway's port, with the upstream behind it listening."""
    return gateway.port
