"""Making keys: 256 random bits behind a prefix that scanners for leaked secrets can find."""

from base64 import urlsafe_b64encode
from collections.abc import Callable

PREFIX = "sk-llmproxy-"
# As many bits as the digest has; 43 characters of text.
RANDOM_BYTES = 32

Random = Callable[[int], bytes]


def new_key(random: Random) -> str:
    """A new key; `random` is secrets.token_bytes, or what a test wants instead."""
    return PREFIX + urlsafe_b64encode(random(RANDOM_BYTES)).rstrip(b"=").decode("ascii")
