"""Whose fault an answer is: its status says most of it, its body the rest.

Some servers answer 500 for what the client did: vLLM once did so for a prompt
that is too long, llama-server does so for JSON it cannot read. A client that
repeats such a request would open the breaker of every endpoint in turn.
"""

import re

from proxy.health.outcome import Outcome

# Error bodies name their reason within the first kilobyte in every server seen.
BLAME_BYTES = 4096

# Alive, but asks to be left alone: TGI 429, vLLM 503, Anthropic 529.
_OVERLOADED = frozenset((429, 503, 529))

_CLIENTS_FAULT = re.compile(
    rb"context[ _]length|context[ _]window|context[ _]size|exceeds? (?:the )?context|maximum model length"
    rb"|max_model_len|prompt is too long|input is too long|reduce the length|too many tokens"
    rb"|invalid_request_error|BadRequestError|ValidationError|json\.exception\.parse_error|JSONDecodeError",
    re.IGNORECASE,
)


def blames(status: int) -> bool:
    """Whether it takes the beginning of the body to say whose fault this status is."""
    return status >= 500 and status not in _OVERLOADED


def outcome_of(status: int, body_start: bytes = b"") -> Outcome:
    """What an answer with this status says about the server; `body_start` matters from 500 up."""
    if status < 400:
        return Outcome.OK
    if status in _OVERLOADED:
        return Outcome.OVERLOADED
    if status < 500 or _CLIENTS_FAULT.search(body_start, 0, BLAME_BYTES):
        return Outcome.CLIENT_ERROR
    return Outcome.SERVER_ERROR
