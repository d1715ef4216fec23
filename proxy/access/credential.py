"""A credential: what is known of a client key, without the key itself.

Keys are 256-bit random, so a plain SHA-256 is all they need: it cannot be
guessed back, and looking a digest up in a dict tells nothing about other keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal

from proxy.access.addresses import Networks
from proxy.access.patterns import Patterns
from proxy.access.quota import Quota

Status = Literal["active", "disabled", "expired", "quota_exceeded"]

# 32 bits: short enough to read aloud, and whoever creates keys refuses a second one.
KEY_ID_DIGITS = 8


def digest(key: bytes) -> bytes:
    """What a key is looked up and stored by."""
    return sha256(key).digest()


def key_id(digest: bytes) -> str:
    """How logs, metrics, limits and usage records call a key."""
    return digest.hex()[:KEY_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one key; None says nothing, 0 says no limit."""

    requests_per_second: float | None = None
    requests_per_minute: float | None = None
    burst_size: int | None = None
    tokens_per_minute: float | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as it may be passed around. A key may have two digests for a while; its id stays the same."""

    key_id: str
    digest: bytes = field(repr=False)
    name: str = ""
    user_id: str = ""
    status: Status = "active"
    starts_at: float | None = None
    expires_at: float | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_ips: Networks = ()
    denied_ips: Networks = ()
    limits: KeyLimits | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    quota: Quota | None = None
    balance: float | None = None
    source: str = ""
    handle: str = field(default="", repr=False, compare=False)
    """What the source finds its entry by; may be the key itself, so it is never shown."""
    also: "tuple[Credential, ...]" = ()
    """What further sources say of the same key, where all have to agree."""
    _models: Patterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_models", Patterns(self.allowed_models))

    def may_use(self, model: str) -> bool:
        """Whether this key may use the model; no list means all."""
        if not self._models.allows(model):
            return False
        return not self.also or all(other.may_use(model) for other in self.also)

    def ending(self, expires_at: float | None) -> "Credential":
        """The same, but not valid beyond `expires_at`: a second digest may end before its key."""
        if expires_at is None or (self.expires_at is not None and self.expires_at <= expires_at):
            return self
        return replace(self, expires_at=expires_at)


def may_use(credential: Credential | None, model: str) -> bool:
    """As the method; whoever needs no key may use every model."""
    return credential is None or credential.may_use(model)
