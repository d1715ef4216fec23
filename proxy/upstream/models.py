"""Model names: what clients see of them, and where each leads.

A name leads to a pool by the first of these that knows it: the configured ids
and aliases, configured patterns (`qwen-*`, the most exact first), a pool that
reports it, the default pool.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from proxy.config import schema_pools as schema

Json = dict[str, object]

# Matching takes polynomial time in a name that clients choose; the longest real one has 120 characters.
MAX_MATCHED_NAME = 512

# Where servers write how much fits: OpenRouter and LM Studio, vLLM and SGLang, llama.cpp's proxies.
_CONTEXT_KEYS = ("context_length", "max_model_len", "max_context_length")


@dataclass(frozen=True, slots=True)
class Hop:
    """A pool that may serve a request, under which configured model, called what there."""

    pool: str
    model: schema.Model | None = None
    upstream_model: str | None = None  # None: the name as the client wrote it


class ModelTable:
    """Finds where a model's requests go, and where else if they cannot be served there."""

    def __init__(
        self,
        models: Sequence[schema.Model],
        fallbacks: Sequence[schema.Fallback],
        *,
        pools: Collection[str],
        default_pool: str,
    ) -> None:
        self._pools = pools
        self._default = default_pool if default_pool in pools else None
        self._exact: dict[str, schema.Model] = {}
        patterns: list[tuple[re.Pattern[str], schema.Model]] = []
        for model in models:
            for name in (model.id, *model.aliases):
                if "*" in name:
                    patterns.append((pattern(name), model))
                else:
                    self._exact[name] = model
        # The more of a pattern is literal, the more exactly it means what it matches.
        self._patterns = sorted(patterns, key=lambda entry: -len(entry[0].pattern))
        self._fallbacks = [([pattern(name) for name in f.models], f.pools) for f in fallbacks]

    def find(
        self, name: str | None, reporting: Callable[[str], str | None] = lambda name: None
    ) -> Hop | None:
        """The way for a model, None if nobody knows it; `reporting` names the pool that reports a model."""
        if name is None:
            return Hop(self._default) if self._default is not None else None
        model = self._exact.get(name)
        if model is not None:
            return self._hop(model, name, None)
        if len(name) <= MAX_MATCHED_NAME:
            for expression, model in self._patterns:
                if match := expression.fullmatch(name):
                    return self._hop(model, name, match)
        if self._default is not None and (pool := reporting(name)) is not None:
            return Hop(pool)
        return Hop(self._default) if self._default is not None else None

    def is_configured(self, name: str) -> bool:
        """Whether an id, alias or pattern means it, so that no pool need be asked."""
        if name in self._exact or len(name) > MAX_MATCHED_NAME:
            return name in self._exact
        return any(expression.fullmatch(name) for expression, _ in self._patterns)

    def chain(self, name: str | None, first: Hop) -> tuple[Hop, ...]:
        """Where else the request may go, in order: the model's own fallbacks, then those of the routing."""
        hops: list[Hop] = []
        for other in first.model.fallback if first.model is not None else ():
            if (hop := self.find(other)) is not None:
                hops.append(hop if hop.upstream_model is not None else Hop(hop.pool, hop.model, other))
        for expressions, pools in self._fallbacks:
            if any(expression.fullmatch((name or "")[:MAX_MATCHED_NAME]) for expression in expressions):
                hops += [
                    Hop(pool, first.model, first.upstream_model) for pool in pools if pool in self._pools
                ]
        return tuple(dict.fromkeys(hop for hop in hops if hop != first))

    def _hop(self, model: schema.Model, name: str, match: re.Match[str] | None) -> Hop | None:
        pool = model.pool or self._default
        if pool is None or pool not in self._pools:
            return None
        upstream = model.upstream_model or (name if "*" in model.id else model.id)
        if match is not None:
            for part in match.groups():
                upstream = upstream.replace("*", part, 1)
        return Hop(pool, model, None if upstream == name else upstream)


def pattern(name: str) -> re.Pattern[str]:
    """A name in which `*` stands for anything, also for nothing."""
    return re.compile("(.*)".join(re.escape(part) for part in name.split("*")), re.DOTALL)


def merge(
    configured: Sequence[schema.Model],
    reported: Mapping[str, Sequence[Json]],
    allowed: Callable[[str], bool],
    *,
    default_pool: str,
    lists_unlisted: bool,
    created: int,
) -> list[Json]:
    """OpenAI's model objects: the configured ones, filled up with what their pools report, and the rest.

    `lists_unlisted`: models that only a pool reports can be used too, and are shown. An
    upstream's own name for a configured model is not shown beside it.
    """
    merged: dict[str, Json] = {}
    renamed: set[tuple[str, str]] = set()
    for model in configured:
        if "*" in model.id:
            continue
        pool = model.pool or default_pool
        upstream = model.upstream_model or model.id
        renamed.add((pool, upstream))
        known = next((entry for entry in reported.get(pool, ()) if entry["id"] == upstream), {})
        merged[model.id] = describe(model, known, created)
    if lists_unlisted:
        for pool, entries in reported.items():
            for entry in entries:
                if (pool, entry["id"]) not in renamed:
                    merged.setdefault(str(entry["id"]), _reported(entry, created))
    return [entry for name, entry in merged.items() if allowed(name)]


def describe(model: schema.Model, known: Json, created: int) -> Json:
    """One configured model; `known` is what its pool says of it."""
    entry: Json = {"id": model.id, "object": "model", "created": created, "owned_by": model.owned_by}
    if model.name:
        entry["name"] = model.name
    if model.description:
        entry["description"] = model.description
    entry |= _limits(model.context_length or context_length(known), model.max_output)
    abilities = {"tools": model.tools, "reasoning": model.reasoning}
    said = {name: can for name, can in abilities.items() if can is not None}
    if said:
        entry["capabilities"] = said
    return entry


def context_length(known: Json) -> int | None:
    """Tokens of prompt and answer together, from a server's own description of a model."""
    meta = known.get("meta")
    found = [known.get(key) for key in _CONTEXT_KEYS]
    if isinstance(meta, dict):
        found.append(meta.get("n_ctx"))  # llama-server
    for value in found:
        if type(value) is int and value > 0:
            return value
    return None


def _limits(context: int | None, output: int | None) -> Json:
    """Under the names that clients look for: OpenRouter's, and vLLM's."""
    limits: Json = {}
    if context is not None:
        limits["context_length"] = limits["max_model_len"] = context
    if output is not None:
        limits["max_output_tokens"] = output
    return limits


def _reported(entry: Json, created: int) -> Json:
    """A model that only its server describes: all that it says, and what every entry has."""
    return (
        {"object": "model", "created": created, "owned_by": ""} | entry | _limits(context_length(entry), None)
    )
