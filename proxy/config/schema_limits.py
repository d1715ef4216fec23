"""Limits for everybody, for each key, user, model and address."""

from typing import Annotated, Literal

from msgspec import Meta

from proxy.config.schema_auth import KeyLimits
from proxy.config.types import Section, at_start, says


class Limits(KeyLimits, frozen=True, kw_only=True):
    """One limit of each kind; 0, or a key left out, is no limit."""

    enabled: Annotated[bool, says("Apply it; on when the section is written.")] = True


class RateLimit(Section, frozen=True, kw_only=True, rename={"global_": "global"}):
    """How much may come in; a request must pass all of these, and a refusal takes nothing from any."""

    enabled: Annotated[bool, says("Apply limits; on when the section is written.")] = True
    storage: Annotated[
        Literal["memory", "redis"],
        at_start("Where levels are kept; several workers or hosts need redis."),
    ] = "memory"
    redis: Annotated[str, at_start("Which of storage.caches, for storage: redis.")] = "default"
    on_store_failure: Annotated[
        Literal["fail_open", "fail_closed"],
        says("While Redis is away: let everything through, or refuse with 503."),
    ] = "fail_open"
    max_subjects: Annotated[
        Annotated[int, Meta(ge=1)],
        says("Keys, users and addresses whose levels are remembered in memory; idle ones go first."),
    ] = 100_000
    global_: Annotated[Limits, says("For all requests together.")] = Limits(enabled=False)
    per_key: Annotated[Limits, says("For each key that has no limits of its own.")] = Limits(enabled=False)
    per_user: Annotated[Limits, says("For all keys of one user_id.")] = Limits(enabled=False)
    per_model: Annotated[Limits, says("For each listed model.")] = Limits(enabled=False)
    per_ip: Annotated[Limits, says("For each client address.")] = Limits(enabled=False)
