"""The healthy instances of a Consul service."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from proxy.upstream.discovery.base import MAX_FOUND, MAX_WEIGHT, Found, SourceFailed, http_url
from proxy.upstream.fetch import Fetcher


class ConsulSource:
    """Asks an agent for the instances whose checks all pass."""

    def __init__(
        self, fetcher: Fetcher, addr: str, *, service: str, tag: str = "", token: str = "", within: float
    ) -> None:
        self._fetcher = fetcher
        base = addr if "://" in addr else f"http://{addr}"
        self._url = f"{base.rstrip('/')}/v1/health/service/{quote(service, safe='')}"
        self._params = {"passing": "true"} | ({"tag": tag} if tag else {})
        self._headers = {"X-Consul-Token": token} if token else {}
        self._within = within

    async def find(self) -> Sequence[Found]:
        answer = await self._fetcher.json(
            self._url, within=self._within, headers=self._headers, params=self._params
        )
        return read_instances(answer)

    async def close(self) -> None:
        pass


def read_instances(answer: object) -> tuple[Found, ...]:
    """The instances in a health answer; raises SourceFailed."""
    if not isinstance(answer, list) or len(answer) > MAX_FOUND:
        raise SourceFailed("not a list of instances, or too long a one")
    return tuple(_instance(entry) for entry in answer)


def _instance(entry: object) -> Found:
    try:
        assert isinstance(entry, dict)
        service: Mapping[str, object] = entry["Service"]
        # An instance without an address of its own is at its node's.
        host, port = service["Address"] or entry["Node"]["Address"], service["Port"]
        meta, weights = service.get("Meta") or {}, service.get("Weights") or {}
        assert isinstance(host, str) and isinstance(port, int)
        assert isinstance(meta, dict) and isinstance(weights, dict)
        scheme = "https" if meta.get("scheme") == "https" else "http"
        weight = weights.get("Passing", 1)
        assert isinstance(weight, int)
    except (AssertionError, KeyError, TypeError) as error:
        raise SourceFailed("not an instance of a service") from error
    return Found(http_url(host, port, scheme), weight=min(max(weight, 0), MAX_WEIGHT))
