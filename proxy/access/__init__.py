"""Who may come in: what a key carries, and the decisions about it.

Nothing here looks a key up or knows one in plain text for longer than it takes
to hash it; where credentials come from is the stores' business.
"""

from proxy.access.addresses import Networks, address, client_ip, is_within, networks, trusted_networks
from proxy.access.credential import Credential, KeyLimits, Status, digest, key_id, may_use
from proxy.access.headers import CredentialHeaders, key_in, key_of
from proxy.access.quota import Period, Quota, Unit, next_period_start, period_start
from proxy.access.refusals import Answer, Answers, Refusal, refusal

__all__ = [
    "Answer",
    "Answers",
    "Credential",
    "CredentialHeaders",
    "KeyLimits",
    "Networks",
    "Period",
    "Quota",
    "Refusal",
    "Status",
    "Unit",
    "address",
    "client_ip",
    "digest",
    "is_within",
    "key_id",
    "key_in",
    "key_of",
    "may_use",
    "networks",
    "next_period_start",
    "period_start",
    "refusal",
    "trusted_networks",
]
