"""Paths without the keys that some clients put there, for logs and records.

A path is not secret and often the only thing that tells requests apart, so only
the segments that hold a credential go: what the same request presents as one in
its head, and what looks like the keys of known makers.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

MASK = b"***"

# A shorter header value may be an ordinary word of a path.
MIN_PRESENTED_BYTES = 8

# OpenAI, Anthropic and we; public and restricted ones in the same manner; Hugging Face, Groq, Replicate, xAI,
# Perplexity, NVIDIA, Google, GitHub, Slack, AWS; and signed tokens (a JWT's head begins with {" in base64).
_KNOWN = re.compile(
    rb"(?<![A-Za-z0-9])(?:(?:sk|pk|rk)[-_]|hf_|gsk_|r8_|xai-|pplx-|nvapi-|AIza|gh[opsu]_|github_pat_|xox[abp]-|AKIA|eyJ)"
    rb"[A-Za-z0-9_-]{12}"
)

# Names of headers in which a key is presented, configured or not.
_CREDENTIAL_NAME = re.compile(rb"auth|key|token|secret|cookie")


def masked(path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """`path` with each segment that holds a key replaced; `headers` are (lower-case name, value)."""
    presented = [
        word
        for name, value in headers
        if _CREDENTIAL_NAME.search(name)
        for word in value.split()
        if len(word) >= MIN_PRESENTED_BYTES
    ]
    return b"/".join(MASK if _holds_key(part, presented) else part for part in path.split(b"/"))


def _holds_key(segment: bytes, presented: Iterable[bytes]) -> bool:
    plain = unquote_to_bytes(segment) if b"%" in segment else segment
    return _KNOWN.search(plain) is not None or any(word in plain for word in presented)
