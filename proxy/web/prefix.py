"""The prefix guard at work on one exchange: whose session it is, what the client is told, what is counted."""

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING

from proxy.balancers.affinity_key import BODY_KEYS, SessionHeaders, session_in_body
from proxy.usage.tokens import Usage
from proxy.wire.openai import Json

if TYPE_CHECKING:
    from proxy.adapters.prefix_guard import PrefixGuard
    from proxy.adapters.prefix_table import Divergence
    from proxy.metrics import Metrics
    from proxy.web.exchange import Exchange

log = logging.getLogger(__name__)

_LINES = b"x-llmproxy-prefix-diverged-at: %d\r\nx-llmproxy-prefix-diverged-in: %b\r\n"
_SHARE = b"x-llmproxy-prefix-cached: %.3f\r\n"

_SESSIONS = SessionHeaders()


class PrefixWatch:
    """Compares a request when it is made; `account` when its answer is over."""

    __slots__ = ("_guard", "_key", "_label", "lines")

    def __init__(self, guard: "PrefixGuard", label: str, key: Hashable) -> None:
        self._guard = guard
        self._label = label
        self._key = key
        self.lines = b""  # what the answer's head says of it

    def compare(self, body: Json, metrics: "Metrics") -> None:
        """Find out where the request differs from its session's last ones."""
        try:
            found = self._guard.compare(self._key, body)
        except Exception as error:
            # An observer that fails does not keep the request from its answer.
            log.error("a prompt could not be compared", extra={"kind": type(error).__name__})
            metrics.count("adapter_failures", "prefix_guard")
            return
        if not found.is_first:
            metrics.count("prefix_compared", self._label)
        if found.cached_share is not None:
            self.lines += _SHARE % found.cached_share
        if found.divergence is not None:
            self._report(found.divergence, metrics, is_alarming=found.is_alarming)

    def account(self, usage: Usage | None, metrics: "Metrics") -> None:
        """What the upstream counted, if it says how much of the prompt its cache held."""
        if usage is None or usage.cached is None:
            return
        metrics.events["prefix_prompt_tokens", self._label] += usage.prompt
        metrics.events["prefix_cached_tokens", self._label] += usage.cached
        self._guard.used(self._key, prompt_tokens=usage.prompt, cached_tokens=usage.cached)

    def _report(self, found: "Divergence", metrics: "Metrics", *, is_alarming: bool) -> None:
        metrics.count("prefix_diverged", self._label)
        metrics.count("prefix_diverged_in", found.part)
        self.lines += _LINES % (found.at, found.part.encode("ascii"))
        if is_alarming:
            log.warning(
                "a session's prompts begin differently each time",
                extra={"model": self._label, "part": found.part, "at": found.at},
            )


def session_of(exchange: "Exchange", body: Json) -> bytes | None:
    """The request's session, as affinity would have it, also where no endpoint is to be chosen."""
    hint = exchange.hint
    if hint.session is None:
        values = {key: body[key] for key in BODY_KEYS if key in body}
        hint = _SESSIONS.find(exchange.head.lines) or session_in_body(values, exchange.body)
    return hint.session
