"""Where a model's requests go, ready to be used: pools, names, time-outs, what else to try."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.config import schema_pools as schema
from proxy.health.retry import RetryPolicy
from proxy.runtime.pools import LivePool, Transport
from proxy.upstream.connection import Timeouts
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.models import Hop, ModelTable
from proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from proxy.adapters.model import ModelAdapters

# Distinct model names whose routes are remembered: those not configured come from clients.
MAX_REMEMBERED = 1024

# Engines' names are paths at most; what a client calls a model may be as long as a body.
MAX_REMEMBERED_NAME = 512


@dataclass(frozen=True, slots=True)
class Route:
    """One pool for one model. `label` names the model in limits and metrics, from the configuration."""

    label: str
    live: LivePool
    upstream_model: bytes | None = None  # what the upstream calls it, where that is another name
    model: schema.Model | None = None
    adapters: "ModelAdapters | None" = None
    fallbacks: "tuple[Route, ...]" = ()
    pool: Pool = field(init=False, repr=False, compare=False)
    retry: RetryPolicy = field(init=False, repr=False, compare=False)
    rewrites: bool = field(init=False, repr=False, compare=False)
    """Whether bodies of this model may have to be rewritten."""
    may_rewrite: bool = field(init=False, repr=False, compare=False)
    """The same of it or of any that it falls back to."""
    own_timeouts: schema.ModelTimeouts | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        model, put = self.model, object.__setattr__
        edits = model is not None and (model.ask_usage or model.sse_keep_alive is not None)
        put(self, "pool", self.live.pool)
        put(self, "retry", self.live.retry)
        put(self, "rewrites", edits or self.adapters is not None)
        put(self, "may_rewrite", self.rewrites or any(route.rewrites for route in self.fallbacks))
        has_timeouts = model is not None and model.timeouts != schema.ModelTimeouts()
        put(self, "own_timeouts", model.timeouts if model is not None and has_timeouts else None)

    def timeouts(self, endpoint: Endpoint) -> Timeouts:
        """The endpoint's, and over them what the model says."""
        transport = endpoint.spec.transport
        assert isinstance(transport, Transport)
        own, base = self.own_timeouts, transport.timeouts
        if own is None:
            return base
        return Timeouts(
            connect=base.connect if own.connect is None else own.connect,
            first_byte=base.first_byte if own.first_byte is None else own.first_byte,
            idle=base.idle if own.idle is None else own.idle,
            total=base.total if own.total is None else own.total,
        )


class Routes:
    """Turns model names into routes, and remembers them."""

    def __init__(
        self, table: ModelTable, pools: dict[str, LivePool], adapters: "dict[str, ModelAdapters]"
    ) -> None:
        self._table = table
        self._adapters = adapters
        self._pools = pools
        self._known: dict[str | None, Route | None] = {}

    def find(self, model: str | None) -> Route | None:
        """The route of a configured model, or the default pool's; None if nobody serves it."""
        try:
            return self._known[model]
        except KeyError:
            route = self._route(model, self._table.find(model))
            if len(self._known) < MAX_REMEMBERED and len(model or "") <= MAX_REMEMBERED_NAME:
                self._known[model] = route
            return route

    def reported(self, model: str, pool: str) -> Route | None:
        """The route to a pool that says it serves the model."""
        return self._route(model, Hop(pool))

    def known(self, model: str | None) -> Route | None:
        """What `find` has found before."""
        return self._known.get(model)

    def is_configured(self, model: str) -> bool:
        return self._table.is_configured(model)

    def _route(self, name: str | None, hop: Hop | None) -> Route | None:
        if hop is None:
            return None
        rest = tuple(self._single(other) for other in self._table.chain(name, hop))
        return self._single(hop, rest)

    def _single(self, hop: Hop, fallbacks: tuple[Route, ...] = ()) -> Route:
        return Route(
            label=hop.model.id if hop.model is not None else "",
            live=self._pools[hop.pool],
            upstream_model=hop.upstream_model.encode() if hop.upstream_model is not None else None,
            model=hop.model,
            adapters=self._adapters.get(hop.model.id) if hop.model is not None else None,
            fallbacks=fallbacks,
        )
