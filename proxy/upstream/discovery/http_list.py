"""A JSON list of backends from a URL.

Each entry is a URL, or an object with `url` and whatever else a backend has. The
list may stand alone or under `backends`. Prometheus' `http_sd` lists are
understood as well: objects with `targets`.
"""

from collections.abc import Mapping, Sequence

from proxy.upstream.discovery.base import Found, SourceFailed, read_entries
from proxy.upstream.fetch import Fetcher


class HttpListSource:
    """Asks one URL."""

    def __init__(
        self, fetcher: Fetcher, url: str, *, method: str, headers: Mapping[str, str], within: float
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._method = method
        self._headers = headers
        self._within = within

    async def find(self) -> Sequence[Found]:
        answer = await self._fetcher.json(
            self._url, within=self._within, method=self._method, headers=self._headers
        )
        return read_list(answer)

    async def close(self) -> None:
        pass


def read_list(answer: object) -> tuple[Found, ...]:
    """The backends of an answer; raises SourceFailed."""
    if isinstance(answer, dict):
        answer = answer.get("backends")
    if not isinstance(answer, list):
        raise SourceFailed("not a list of backends")
    entries: list[object] = []
    for entry in answer:
        if isinstance(entry, dict) and isinstance(targets := entry.get("targets"), list):
            entries += targets
        else:
            entries.append(entry)
    return read_entries(entries)
