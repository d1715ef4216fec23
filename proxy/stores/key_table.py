"""Keys that are all known beforehand: those of the configuration and of key files."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from proxy.access import Credential, KeyLimits, Quota, digest, key_id, networks
from proxy.config.schema_auth import Key


class KeyTable:
    """Credentials by digest; looking one up takes no time worth waiting for."""

    def __init__(self, name: str, credentials: Iterable[tuple[bytes, Credential]] = ()) -> None:
        self.name = name
        self._credentials = dict(credentials)

    @classmethod
    def of(cls, name: str, keys: Iterable[Key]) -> "KeyTable":
        """The table of what was read; `clashes` has judged the keys before."""
        return cls(name, (entry for key in keys for entry in _entries(name, key)))

    @property
    def has_quotas(self) -> bool:
        return any(credential.quota is not None for credential in self._credentials.values())

    @property
    def has_limits(self) -> bool:
        return any(credential.limits is not None for credential in self._credentials.values())

    def __len__(self) -> int:
        return len(self._credentials)

    def find(self, digest: bytes) -> Credential | None:
        return self._credentials.get(digest)

    def credentials(self) -> Iterable[Credential]:
        return self._credentials.values()


def clashes(keys: Iterable[Key]) -> Iterator[tuple[int, int, str]]:
    """Entries that stand for an earlier one's key, or share its id: which, with which, a sentence."""
    seen: dict[bytes, int] = {}
    ids: dict[str, int] = {}
    for index, key in enumerate(keys):
        digests = _digests(key)
        earlier = next((seen[found] for found in digests if found in seen), None)
        if earlier is None:
            earlier = ids.get(key_id(digests[0]))
            sentence = f"its id {key_id(digests[0])} is taken by another key; make a new one"
        else:
            sentence = "this key stands in an earlier entry already"
        if earlier is not None:
            yield index, earlier, sentence
        seen.update(dict.fromkeys(digests, index))
        ids.setdefault(key_id(digests[0]), index)


def _digests(key: Key) -> list[bytes]:
    """The digest that names the key, then one that is valid too."""
    first = digest(key.key.encode()) if key.key is not None else bytes.fromhex(key.sha256 or "")
    return [first, bytes.fromhex(key.next_sha256)] if key.next_sha256 else [first]


def _entries(source: str, key: Key) -> list[tuple[bytes, Credential]]:
    digests = _digests(key)
    credential = _credential(source, key, digests[0])
    return [(found, replace(credential, digest=found)) for found in digests]


def _credential(source: str, key: Key, identity: bytes) -> Credential:
    return Credential(
        key_id=key_id(identity),
        digest=identity,
        name=key.name,
        user_id=key.user_id,
        status=key.status,
        starts_at=key.starts_at,
        expires_at=key.expires_at,
        allowed_models=key.allowed_models,
        allowed_ips=networks(key.allowed_ips),
        denied_ips=networks(key.denied_ips),
        limits=_limits(key),
        labels=key.labels,
        quota=_quota(key),
        balance=key.balance,
        source=source,
    )


def _limits(key: Key) -> KeyLimits | None:
    if key.limits is None:
        return None
    return KeyLimits(
        key.limits.requests_per_second,
        key.limits.requests_per_minute,
        key.limits.burst_size,
        key.limits.tokens_per_minute,
        key.limits.max_concurrent,
    )


def _quota(key: Key) -> Quota | None:
    if not key.total_quota:
        return None
    return Quota(key.total_quota, key.used_quota, key.quota_unit, key.quota_reset_period, key.last_reset_at)
