"""The ready endpoints of a Kubernetes service.

EndpointSlices are asked for; where they may not be read (an old cluster, a role
made for Endpoints), Endpoints are. Inside a pod the service account's token is
read each time, because the kubelet renews it, and its authority is trusted.
"""

import os
import ssl as tls
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from proxy.upstream.discovery.base import MAX_FOUND, Found, SourceFailed, http_url
from proxy.upstream.fetch import Fetcher, Unwelcome

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# "You may not" and "there is no such thing": both mean, try the older kind.
_TRY_ENDPOINTS = (403, 404)

_Object = Mapping[str, object]


class KubernetesSource:
    """Asks the API server for a service's addresses, or for those that a label selects."""

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        namespace: str,
        service: str,
        label_selector: str = "",
        port: int,
        within: float,
        api_url: str = "",
        account: Path = SERVICE_ACCOUNT,
    ) -> None:
        self._fetcher = fetcher
        self._api_url = api_url or in_cluster_url()
        self._namespace = quote(namespace, safe="")
        self._service = service
        self._selector = label_selector or f"kubernetes.io/service-name={service}"
        self._label_selector = label_selector
        self._port = port
        self._within = within
        self._account = account
        self._ssl: tls.SSLContext | None = None

    async def find(self) -> Sequence[Found]:
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        try:
            return read_slices(await self._get(slices, self._selector), self._port)
        except Unwelcome as refusal:
            if refusal.status not in _TRY_ENDPOINTS:
                raise
        return read_endpoints(await self._get(*self._endpoints()), self._port)

    async def close(self) -> None:
        pass

    def _endpoints(self) -> tuple[str, str]:
        path = f"/api/v1/namespaces/{self._namespace}/endpoints"
        if self._label_selector:
            return path, self._label_selector
        return f"{path}/{quote(self._service, safe='')}", ""

    async def _get(self, path: str, selector: str) -> object:
        try:
            token = (self._account / "token").read_text("ascii").strip()
            if self._ssl is None and self._api_url.startswith("https:"):
                self._ssl = tls.create_default_context(cafile=str(self._account / "ca.crt"))
        except (OSError, ValueError) as error:
            raise SourceFailed("the service account cannot be read") from error
        return await self._fetcher.json(
            self._api_url + path,
            within=self._within,
            headers={"Authorization": f"Bearer {token}"},
            params={"labelSelector": selector} if selector else {},
            ssl=self._ssl,
        )


def in_cluster_url() -> str:
    """The API server's address as every pod is told it."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    return http_url(host, int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")), "https")


def read_slices(answer: object, port: int) -> tuple[Found, ...]:
    """The ready addresses of a list of EndpointSlices; raises SourceFailed."""
    found: dict[str, Found] = {}
    for piece in _objects(answer, "items"):
        chosen = _port(piece, port)
        for endpoint in _objects(piece, "endpoints", optional=True):
            conditions = endpoint.get("conditions")
            # Unknown counts as ready, says the API.
            if isinstance(conditions, dict) and conditions.get("ready") is False:
                continue
            # All of an endpoint's addresses are the same pod; the API wants the first one used.
            addresses = endpoint.get("addresses")
            if isinstance(addresses, list) and addresses and isinstance(addresses[0], str):
                url = http_url(addresses[0], chosen)
                found[url] = Found(url)
    return _bounded(found)


def read_endpoints(answer: object, port: int) -> tuple[Found, ...]:
    """The ready addresses of one Endpoints object, or of a list of them; raises SourceFailed."""
    found: dict[str, Found] = {}
    is_list = isinstance(answer, dict) and "items" in answer
    for item in _objects(answer, "items") if is_list else _objects({"items": [answer]}, "items"):
        for subset in _objects(item, "subsets", optional=True):
            chosen = _port(subset, port)
            for address in _objects(subset, "addresses", optional=True):
                if isinstance(ip := address.get("ip"), str):
                    url = http_url(ip, chosen)
                    found[url] = Found(url)
    return _bounded(found)


def _port(piece: _Object, wanted: int) -> int:
    """The wanted port if it is there, or the only one: pods listen elsewhere than their service."""
    ports = [entry.get("port") for entry in _objects(piece, "ports", optional=True)]
    numbers = [port for port in ports if isinstance(port, int)]
    return numbers[0] if len(numbers) == 1 else wanted


def _objects(holder: object, key: str, *, optional: bool = False) -> Iterator[_Object]:
    entries = holder.get(key) if isinstance(holder, dict) else None
    if entries is None and optional:
        return
    if not isinstance(entries, list):
        raise SourceFailed("not a list of Kubernetes objects")
    for entry in entries:
        if not isinstance(entry, dict):
            raise SourceFailed("not a list of Kubernetes objects")
        yield entry


def _bounded(found: Mapping[str, Found]) -> tuple[Found, ...]:
    if len(found) > MAX_FOUND:
        raise SourceFailed("more addresses than a pool may have")
    return tuple(found.values())
