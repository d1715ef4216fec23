"""What the pipeline needs from a place where keys are kept.

"Nobody has this key" and "nobody can say" are different answers: the first is
None, the second an exception, and only the first may become a 401.
"""

from typing import Protocol

from proxy.access import Credential, Quota


class StoreUnavailable(Exception):
    """A source gives no answer; `source` names it."""

    def __init__(self, source: str, reason: str = "") -> None:
        super().__init__(f"key source {source} gives no answer{reason and ': '}{reason}")
        self.source = source
        self.reason = reason


class LookupFailed(StoreUnavailable):
    """This one key could not be looked up; the source itself may be well."""


class KeyStore(Protocol):
    """Keys that have to be asked for."""

    name: str

    async def find(self, digest: bytes, key: str) -> Credential | None:
        """What is known of a key, None if nobody has it, StoreUnavailable if nobody can say."""

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        """Count what was used, atomically; the quota as it is now, None if nothing is counted here.

        `entry` is the same when the same debit is tried again.
        """

    async def close(self) -> None:
        """Let go of connections."""
