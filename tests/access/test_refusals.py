"""Why keys are refused, and what is answered then."""

import re

import pytest

from proxy.access import Answer, Answers, Credential, Quota, Refusal, digest, networks, refusal

NOW = 1_770_000_000.0
HOME = "10.0.0.7"


def credential(**facts):
    return Credential("0a1b2c3d", digest(b"key"), **facts)


CASES = [
    ({}, None),
    ({"status": "disabled"}, Refusal.DISABLED),
    ({"status": "expired"}, Refusal.EXPIRED),
    ({"status": "quota_exceeded"}, Refusal.QUOTA_EXCEEDED),
    ({"starts_at": NOW}, None),
    ({"starts_at": NOW + 0.001}, Refusal.NOT_STARTED),
    ({"expires_at": NOW + 0.001}, None),
    ({"expires_at": NOW}, Refusal.EXPIRED),
    ({"allowed_ips": networks(["10.0.0.0/8"])}, None),
    ({"allowed_ips": networks(["11.0.0.0/8"])}, Refusal.IP_DENIED),
    ({"denied_ips": networks(["11.0.0.0/8"])}, None),
    ({"denied_ips": networks([HOME])}, Refusal.IP_DENIED),
    ({"denied_ips": networks([HOME]), "allowed_ips": networks(["10.0.0.0/8"])}, Refusal.IP_DENIED),
    ({"quota": Quota(100, used=99)}, None),
    ({"quota": Quota(100, used=100)}, Refusal.QUOTA_EXCEEDED),
    ({"quota": Quota(100, used=100, period="daily", last_reset_at=NOW - 86_400)}, None),
    ({"balance": 0.01}, None),
    ({"balance": 0.0}, Refusal.QUOTA_EXCEEDED),
    ({"balance": -3.5}, Refusal.QUOTA_EXCEEDED),
    ({"also": (credential(), credential(status="disabled"))}, Refusal.DISABLED),
    ({"also": (credential(),)}, None),
]


@pytest.mark.parametrize(("facts", "reason"), CASES)
def test_a_key_is_good_or_there_is_one_reason_why_not(facts, reason):
    assert refusal(credential(**facts), NOW, HOME) is reason


@pytest.mark.parametrize(
    "facts", [{"allowed_ips": networks([HOME])}, {"denied_ips": networks(["11.0.0.0/8"])}]
)
def test_an_address_nobody_can_read_does_not_pass_a_list(facts):
    assert refusal(credential(**facts), NOW, "local") is Refusal.IP_DENIED
    assert refusal(credential(), NOW, "local") is None


DEFAULTS = [
    (Refusal.MISSING, 401, "invalid_api_key"),
    (Refusal.NOT_FOUND, 401, "invalid_api_key"),
    (Refusal.DISABLED, 403, "key_not_allowed"),
    (Refusal.NOT_STARTED, 403, "key_not_allowed"),
    (Refusal.EXPIRED, 403, "key_not_allowed"),
    (Refusal.IP_DENIED, 403, "key_not_allowed"),
    (Refusal.QUOTA_EXCEEDED, 429, "insufficient_quota"),
]


@pytest.mark.parametrize(("reason", "status", "code"), DEFAULTS)
def test_each_reason_has_its_status_and_code(reason, status, code):
    error = Answers().error(reason)

    assert (error.status, error.code) == (status, code)
    assert ("WWW-Authenticate" in error.headers) is (status == 401)
    assert (error.headers.get("x-should-retry") == "false") is (status == 429)


@pytest.mark.parametrize("reason", list(Refusal))
def test_no_message_of_ours_makes_a_client_try_again(reason):
    message = Answers().error(reason).message

    assert not re.search("429|50[0234]|524|rate limit|server error|overloaded", message, re.IGNORECASE)


CONFIGURED = [(reason, str(reason)) for reason in ("disabled", "expired", "quota_exceeded", "not_found")]


@pytest.mark.parametrize(("reason", "field"), [*CONFIGURED, ("not_started", "disabled")])
def test_status_and_message_can_be_configured(reason, field):
    answers = Answers(**{field: Answer(http_code=402, message="Call us.")})

    error = answers.error(Refusal(reason))

    assert (error.status, error.message) == (402, "Call us.")
    assert type(error).status != 402


@pytest.mark.parametrize("field", ["disabled", "expired", "quota_exceeded", "not_found"])
def test_a_case_can_be_let_through(field):
    answers = Answers(**{field: Answer(allow=True)})

    assert answers.error(Refusal(field)) is None


def test_neither_a_missing_key_nor_a_wrong_address_is_let_through_by_any_of_them():
    every = Answer(allow=True)
    answers = Answers(every, every, every, every, every)

    assert answers.error(Refusal.MISSING).status == 401
    assert answers.error(Refusal.IP_DENIED).status == 403


def test_a_good_key_is_let_in_unless_even_that_is_configured_away():
    assert Answers().error(None) is None
    assert Answers(active=Answer(http_code=503, message="Closed.")).error(None).status == 503


@pytest.mark.parametrize("status", [429, 409, 500, 503])
def test_a_status_that_clients_would_retry_says_that_it_is_of_no_use(status):
    error = Answers(expired=Answer(http_code=status)).error(Refusal.EXPIRED)

    assert error.headers["x-should-retry"] == "false"
