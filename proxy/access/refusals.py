"""Why a key is not let in, and what its holder is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.access.addresses import address, is_within
from proxy.access.credential import Credential
from proxy.errors import Forbidden, ProxyError, QuotaExceeded, Unauthorized


class Refusal(StrEnum):
    """The reasons, as logs and metrics name them."""

    MISSING = "missing"
    NOT_FOUND = "not_found"
    DISABLED = "disabled"
    NOT_STARTED = "not_started"
    EXPIRED = "expired"
    IP_DENIED = "ip_denied"
    QUOTA_EXCEEDED = "quota_exceeded"


_OF_STATUS = {
    "disabled": Refusal.DISABLED,
    "expired": Refusal.EXPIRED,
    "quota_exceeded": Refusal.QUOTA_EXCEEDED,
}


def refusal(credential: Credential, now: float, ip: str) -> Refusal | None:
    """Why this key may not be used now and from there; None if it may."""
    if credential.status != "active":
        return _OF_STATUS[credential.status]
    if credential.starts_at is not None and now < credential.starts_at:
        return Refusal.NOT_STARTED
    if credential.expires_at is not None and now >= credential.expires_at:
        return Refusal.EXPIRED
    if (credential.denied_ips or credential.allowed_ips) and not _may_come_from(credential, ip):
        return Refusal.IP_DENIED
    if _is_spent(credential, now):
        return Refusal.QUOTA_EXCEEDED
    return _refused_elsewhere(credential, now, ip) if credential.also else None


def _may_come_from(credential: Credential, ip: str) -> bool:
    """The deny list has the first word; an address nobody can read is on no list of those allowed."""
    found = address(ip)
    if found is None:
        return False
    if is_within(found, credential.denied_ips):
        return False
    return not credential.allowed_ips or is_within(found, credential.allowed_ips)


def _is_spent(credential: Credential, now: float) -> bool:
    if credential.balance is not None and credential.balance <= 0:
        return True
    quota = credential.quota
    return quota is not None and quota.used_at(now) >= quota.total


def _refused_elsewhere(credential: Credential, now: float, ip: str) -> Refusal | None:
    reasons = (refusal(other, now, ip) for other in credential.also)
    return next((reason for reason in reasons if reason is not None), None)


# -- what the client is told ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What is configured for one case; None leaves status or message as they are."""

    allow: bool = False
    http_code: int | None = None
    message: str | None = None


_LET_IN = Answer(allow=True)

# Statuses that clients take for a reason to try again.
_RETRIED = frozenset((408, 409, 425, 429))

_ERRORS: Mapping[Refusal, tuple[type[ProxyError], str]] = {
    Refusal.MISSING: (Unauthorized, "You didn't provide an API key."),
    Refusal.NOT_FOUND: (Unauthorized, "Incorrect API key provided."),
    Refusal.DISABLED: (Forbidden, "This API key is disabled."),
    Refusal.NOT_STARTED: (Forbidden, "This API key is not valid yet."),
    Refusal.EXPIRED: (Forbidden, "This API key has expired."),
    Refusal.IP_DENIED: (Forbidden, "This API key may not be used from this address."),
    Refusal.QUOTA_EXCEEDED: (QuotaExceeded, "This API key has used up its quota."),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """`auth.status_codes`: what is answered in which case."""

    active: Answer = _LET_IN
    disabled: Answer = field(default_factory=Answer)
    expired: Answer = field(default_factory=Answer)
    quota_exceeded: Answer = field(default_factory=Answer)
    not_found: Answer = field(default_factory=Answer)

    def error(self, reason: Refusal | None) -> ProxyError | None:
        """What to raise, or None where the request may go on; reason None is a key that is good."""
        if reason is None:
            return None if self.active.allow else _error(Refusal.DISABLED, self.active)
        answer = self._answer(reason)
        return None if answer.allow else _error(reason, answer)

    def _answer(self, reason: Refusal) -> Answer:
        match reason:
            case Refusal.NOT_FOUND:
                return self.not_found
            case Refusal.DISABLED | Refusal.NOT_STARTED:
                return self.disabled
            case Refusal.EXPIRED:
                return self.expired
            case Refusal.QUOTA_EXCEEDED:
                return self.quota_exceeded
        return Answer()


def _error(reason: Refusal, answer: Answer) -> ProxyError:
    kind, message = _ERRORS[reason]
    status = answer.http_code or kind.status
    headers = {}
    if status == Unauthorized.status:
        headers["WWW-Authenticate"] = "Bearer"
    if status in _RETRIED or status >= 500:
        headers["x-should-retry"] = "false"
    error = kind(answer.message or message, headers=headers)
    error.status = status
    return error
