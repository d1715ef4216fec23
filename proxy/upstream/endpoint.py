"""One upstream address: what the configuration says of it, and how it is doing.

What it is doing outlives a reload. Two generations that name the same address
share its load, its breaker and the word of the checks, and where nothing about
it changed they share the endpoint with all its connections.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.balancers.load import Load
from proxy.health.breaker import Breaker, BreakerSettings, State
from proxy.health.key_ring import KeyRing
from proxy.health.outcome import FAILURES, Outcome
from proxy.health.slow_start import share
from proxy.health.thresholds import Thresholds, ThresholdSettings
from proxy.wire.headers import RequestRewrite
from proxy.wire.tunnel import OutboundProxy

if TYPE_CHECKING:
    from proxy.upstream.connections import Connections

DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What the configuration says of one address. Equal specs are the same endpoint."""

    name: str
    scheme: str
    host: str
    port: int
    base_path: bytes = b""
    weight: float = 1.0
    headers: Headers = field(default=(), repr=False)  # set on every request, a fixed credential among them
    keys: tuple[bytes, ...] = field(default=(), repr=False)  # several keys in place of a fixed one
    awaits_token: bool = False  # its credential comes later, by `use_token`
    removed: tuple[bytes, ...] = ()  # lower-case names that it must not see
    connect_timeout: float = 5.0
    max_in_flight: int | None = None
    proxy: OutboundProxy | None = None
    transport: Hashable = None  # what only the maker of connections knows: TLS, time-outs

    @property
    def address(self) -> Hashable:
        """What makes it the same server after a reload, whatever else changed.

        The way there is part of it: what is known of one proxy says nothing of another.
        """
        return self.scheme, self.host, self.port, self.base_path, self.proxy

    @property
    def authority(self) -> bytes:
        """The Host header it gets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == DEFAULT_PORTS.get(self.scheme):
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")

    @property
    def url(self) -> str:
        """For logs and probes: scheme, authority and base path; never credentials."""
        return f"{self.scheme}://{self.authority.decode('ascii')}{self.base_path.decode('ascii')}"


def split_url(url: str) -> tuple[str, str, int, bytes]:
    """Scheme, host, port and base path of a backend's URL; ValueError says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("the URL must begin with http:// or https://")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the URL may hold scheme, host, port and a path, nothing more")
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    host = parts.hostname.encode("idna").decode("ascii") if not parts.hostname.isascii() else parts.hostname
    return parts.scheme, host, port, parts.path.rstrip("/").encode("ascii")


class Changes:
    """A count that rises when any endpoint's fitness changes, so that pools know when to look again."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Vitals:
    """How one address is doing; shared by the generations that name it."""

    __slots__ = ("breaker", "came_back", "changes", "checks", "load", "slow_start")

    def __init__(
        self,
        changes: Changes,
        *,
        breaker: BreakerSettings | None = None,
        thresholds: ThresholdSettings | None = None,
        slow_start: float = 0.0,
    ) -> None:
        self.changes = changes
        self.load = Load()
        self.breaker = Breaker(breaker)
        self.checks = Thresholds(thresholds or ThresholdSettings())
        self.slow_start = slow_start
        self.came_back: float | None = None

    def checked(self, good: bool, now: float) -> bool:
        """Take one active check's result; return whether the endpoint went up or down."""
        flipped = self.checks.record(good)
        if flipped and good:
            self.came_back = now
        # A good check proves that it can be connected to, no more: other failures are the breaker's affair.
        reached = good and self.breaker.reached()
        if flipped or reached:
            self.changes.count += 1
        return flipped

    def finished(self, outcome: Outcome, now: float, *, term: int, first_byte: float | None) -> None:
        """One attempt is over."""
        load = self.load
        load.end()
        if outcome in FAILURES:
            load.fail(now)
        elif first_byte is not None:
            load.measure(first_byte, now)
        self._record(outcome, now, term)

    def cleared(self, now: float, *, term: int) -> None:
        """An attempt that still runs shows that the server works."""
        self._record(Outcome.OK, now, term)

    def _record(self, outcome: Outcome, now: float, term: int) -> None:
        if self.breaker.record(outcome, now, term):
            if self.breaker.state is State.CLOSED:
                self.came_back = now
            self.changes.count += 1


class Endpoint:
    """One address in one generation's pool.

    `rewrite` is how requests to it differ from the client's at the moment: it changes
    with the credential, so each attempt takes it once.
    """

    __slots__ = (
        "_headers",
        "_is_ready",
        "_rewrites",
        "_ring",
        "connections",
        "is_unresponsive",
        "load",
        "max_in_flight",
        "name",
        "rewrite",
        "spec",
        "url",
        "vitals",
        "weight",
    )

    def __init__(
        self, spec: EndpointSpec, vitals: Vitals, connect: "Callable[[Endpoint], Connections]"
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.url = spec.url
        self.vitals = vitals
        self.load = vitals.load
        self.max_in_flight = spec.max_in_flight
        self.weight = spec.weight
        self.is_unresponsive = False  # it takes requests and answers nobody, not even a question
        self._is_ready = not spec.awaits_token
        self._ring = KeyRing(len(spec.keys)) if spec.keys else None
        self._headers = [_headers(spec, key) for key in spec.keys] or [spec.headers]
        self._rewrites = [_rewrite(spec, headers) for headers in self._headers]
        self.rewrite = self._rewrites[0]
        self.connections = connect(self)

    @property
    def headers(self) -> Headers:
        """What is set on every request to it at the moment, the credential among them."""
        return self._headers[self._rewrites.index(self.rewrite)]

    @property
    def in_flight(self) -> int:
        return self.load.in_flight

    @property
    def is_up(self) -> bool:
        """What the active checks say, true where there are none; false while its token is missing."""
        return self._is_ready and self.vitals.checks.is_up

    @property
    def is_full(self) -> bool:
        return self.max_in_flight is not None and self.load.in_flight >= self.max_in_flight

    def admits(self, now: float) -> bool:
        """Whether it may get a request, for all that is known."""
        return self.is_up and not self.is_unresponsive and self.vitals.breaker.admits(now)

    def responds(self, yes: bool) -> None:
        """Whether it answers anybody, as far as is known."""
        self.is_unresponsive = not yes
        self.vitals.changes.count += 1

    def settle_weight(self, now: float) -> bool:
        """Bring `weight` to what slow start allows by now; return whether it is still growing."""
        part = share(self.vitals.came_back, now, self.vitals.slow_start)
        self.weight = self.spec.weight * part
        return part < 1.0

    def use_token(self, token: bytes) -> None:
        """Send this credential from now on."""
        self._headers = [_headers(self.spec, token)]
        self._rewrites = [_rewrite(self.spec, self._headers[0])]
        self.rewrite = self._rewrites[0]
        if not self._is_ready:
            self._is_ready = True
            self.vitals.changes.count += 1

    def key_worked(self, rewrite: RequestRewrite) -> None:
        """A request made by `rewrite` was accepted."""
        if self._ring is not None and rewrite in self._rewrites:
            self._ring.worked(self._rewrites.index(rewrite))

    def key_refused(
        self, rewrite: RequestRewrite, status: int, retry_after: float | None, now: float
    ) -> bool:
        """A request made by `rewrite` got a 401, 403 or 429; return whether another key may be tried now."""
        if self._ring is None or rewrite not in self._rewrites:
            return False
        is_another = self._ring.refused(self._rewrites.index(rewrite), status, retry_after, now)
        self.rewrite = self._rewrites[self._ring.current]
        return is_another

    def close(self) -> None:
        self.connections.close()


def _headers(spec: EndpointSpec, key: bytes) -> Headers:
    """What is set on requests with this key in place of any other credential."""
    others = tuple(header for header in spec.headers if header[0].lower() != b"authorization")
    return (*others, (b"Authorization", b"Bearer " + key))


def _rewrite(spec: EndpointSpec, headers: Headers) -> RequestRewrite:
    return RequestRewrite(host=spec.authority, prefix=spec.base_path, replaced=spec.removed, added=headers)
