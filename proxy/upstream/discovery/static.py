"""A list from the configuration, to stand beside other sources or behind them."""

from collections.abc import Sequence

from proxy.upstream.discovery.base import Found


class StaticSource:
    """Always says the same."""

    def __init__(self, found: Sequence[Found]) -> None:
        self._found = tuple(found)

    async def find(self) -> Sequence[Found]:
        return self._found

    async def close(self) -> None:
        pass
