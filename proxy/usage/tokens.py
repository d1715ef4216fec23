"""What an answer says it used, in every dialect, as one value.

OpenAI counts `prompt_tokens` and `completion_tokens`, the Responses API and
Anthropic `input_tokens` and `output_tokens`, llama-server adds `timings`, TGI
puts the counts in response headers. A count that is not a whole number of at
least 0 is treated as not given.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

# A count above this is not a count: the longest context windows have some 10 million
# tokens, and a receiver must be able to store the number in 64 bits even when added up.
MAX_TOKENS = 2**40

_DIGITS = 12  # of a header's count: the length of MAX_TOKENS in decimal, less one


class Usage(Struct, frozen=True, gc=False, rename="{}_tokens".format):
    """Tokens of one answer; `cached` and `reasoning` are parts of `prompt` and `completion`."""

    prompt: int
    completion: int
    total: int
    cached: int | None = None
    reasoning: int | None = None


def usage_from_object(found: Mapping[str, Any]) -> Usage | None:
    """Read a `usage` object, or None if it counts nothing we know."""
    if len(found) == 3 and (usual := _usual(found)) is not None:
        return usual
    prompt = _count(found, "prompt_tokens", "input_tokens")
    completion = _count(found, "completion_tokens", "output_tokens")
    total = _count(found, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    cached = _cached(found)
    if prompt is not None and "cache_read_input_tokens" in found:
        # Anthropic's input_tokens are only those that no cache held.
        prompt += (cached or 0) + (_count(found, "cache_creation_input_tokens") or 0)
    if prompt is None:
        prompt = max((total or 0) - (completion or 0), 0)
    if completion is None:
        completion = max((total or 0) - prompt, 0)
    return Usage(
        prompt, completion, prompt + completion if total is None else total, cached, _reasoning(found)
    )


def _usual(found: Mapping[str, Any]) -> Usage | None:
    """What most servers say, and nothing more."""
    try:
        counts = found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]
    except KeyError:
        return None
    for count in counts:
        if type(count) is not int or not 0 <= count <= MAX_TOKENS:
            return None
    return Usage(*counts)


def usage_from_timings(timings: Mapping[str, Any]) -> Usage | None:
    """Read llama-server's `timings`; its `prompt_n` leaves out what the cache held."""
    evaluated, predicted = _count(timings, "prompt_n"), _count(timings, "predicted_n")
    if evaluated is None or predicted is None:
        return None
    cached = _count(timings, "cache_n")
    prompt = evaluated + (cached or 0)
    return Usage(prompt, predicted, prompt + predicted, cached)


def usage_from_details(details: Mapping[str, Any]) -> Usage | None:
    """Read the `details` at the end of TGI's own stream."""
    generated = _count(details, "generated_tokens")
    prompt = _count(details, "input_length")
    if generated is None or prompt is None:
        return None
    return Usage(prompt, generated, prompt + generated)


def usage_from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Usage | None:
    """Read TGI's `x-prompt-tokens` and `x-generated-tokens` from raw response headers."""
    prompt = generated = None
    for name, value in headers:
        if len(name) == len(b"x-prompt-tokens") and name.lower() == b"x-prompt-tokens":
            prompt = _digits(value)
        elif len(name) == len(b"x-generated-tokens") and name.lower() == b"x-generated-tokens":
            generated = _digits(value)
    if prompt is None or generated is None:
        return None
    return Usage(prompt, generated, prompt + generated)


def _count(found: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if type(value) is int and 0 <= value <= MAX_TOKENS:
            return value
    return None


def _cached(found: Mapping[str, Any]) -> int | None:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = found.get(name)
        if isinstance(details, dict) and (count := _count(details, "cached_tokens")) is not None:
            return count
    return _count(found, "cache_read_input_tokens", "prompt_cache_hit_tokens", "cached_tokens")


def _reasoning(found: Mapping[str, Any]) -> int | None:
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = found.get(name)
        if isinstance(details, dict) and (count := _count(details, "reasoning_tokens")) is not None:
            return count
    return _count(found, "reasoning_tokens")


def _digits(value: bytes) -> int | None:
    value = value.strip()
    return int(value) if value.isdigit() and len(value) <= _DIGITS else None
