"""What a webhook or a function says of a key.

It must say so plainly: `allow` true or false, or the key's `status`. Anything
else is a mistake on the other side and lets nobody in.
"""

from collections.abc import Mapping
from typing import Any

from proxy.access import Credential
from proxy.stores.record import BadRecord, credential_of


class BadAnswer(ValueError):
    """Not an answer; the text says why and holds nothing of it."""


def credential_from(answer: Mapping[str, Any], digest: bytes, *, source: str) -> Credential | None:
    """The credential that an answer describes, None where it says that there is no such key."""
    allow, reason = answer.get("allow"), answer.get("reason")
    if allow is None and answer.get("status") in (None, ""):
        raise BadAnswer("the answer has neither allow nor status")
    if allow is not None and not isinstance(allow, bool):
        raise BadAnswer("allow must be true or false")
    if answer.get("status") == "not_found" or (allow is False and reason == "not_found"):
        return None
    record = dict(answer)
    if allow is False:
        record["status"] = reason if reason in ("expired", "quota_exceeded") else "disabled"
    try:
        return credential_of(record, digest, source=source)
    except BadRecord as error:
        raise BadAnswer(str(error)) from None
