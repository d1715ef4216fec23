"""Records in everybody's spelling."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import KeyLimits, Quota, digest, networks
from proxy.stores.record import BadRecord, credential_of, moment

DIGEST = digest(b"key")
NEW_YEAR = 1767225600.0


def read(**record):
    return credential_of(record, DIGEST, source="s")


STATUSES = [
    ("active", "active"),
    (" Active ", "active"),
    ("disabled", "disabled"),
    ("quota_exceeded", "quota_exceeded"),
    ("expired", "expired"),
    (0, "active"),
    (1, "disabled"),
    (2, "quota_exceeded"),
    (3, "expired"),
    ("0", "active"),
    ("1", "disabled"),
    (b"1", "disabled"),
    (Decimal(3), "expired"),
    (None, "active"),
    ("", "active"),
    (True, "active"),
    (False, "disabled"),
    ("banned", "disabled"),
    (7, "disabled"),
    (-1, "disabled"),
    ("aktiv", "disabled"),
]


@pytest.mark.parametrize(("written", "meant"), STATUSES)
def test_a_status_that_nobody_knows_lets_nobody_in(written, meant):
    assert read(status=written).status == meant


TIMES = [
    (None, None),
    ("", None),
    (0, None),
    ("0", None),
    (-62135596800, None),
    ("0001-01-01T00:00:00Z", None),
    (1767225600, NEW_YEAR),
    ("1767225600", NEW_YEAR),
    ("1767225600.5", NEW_YEAR + 0.5),
    (b"2026-01-01T00:00:00Z", NEW_YEAR),
    ("2026-01-01T01:00:00+01:00", NEW_YEAR),
    ("2026-01-01 00:00:00", NEW_YEAR),
    ("2026-01-01 00:00:00+00:00", NEW_YEAR),
    ("2026-01-01", NEW_YEAR),
    ("2026-01-01T00:00:00.123456789Z", NEW_YEAR + 0.123456),
    (datetime(2026, 1, 1), NEW_YEAR),
    (datetime(2026, 1, 1, tzinfo=UTC), NEW_YEAR),
    (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), NEW_YEAR),
    (date(2026, 1, 1), NEW_YEAR),
    (Decimal("1767225600"), NEW_YEAR),
]


@pytest.mark.parametrize(("written", "meant"), TIMES)
def test_times_come_in_every_spelling(written, meant):
    assert read(expires_at=written).expires_at == meant


LISTS = [
    (None, ()),
    ("", ()),
    ("[]", ()),
    ([], ()),
    ("a", ("a",)),
    ("a, b ,", ("a", "b")),
    ('["a", "b*"]', ("a", "b*")),
    (["a", "b"], ("a", "b")),
    (b'["a"]', ("a",)),
]


@pytest.mark.parametrize(("written", "meant"), LISTS)
def test_lists_are_json_or_words_between_commas(written, meant):
    assert read(allowed_models=written).allowed_models == meant


def test_addresses_may_be_those_of_a_database():
    expected = networks(["10.0.0.0/8", "192.0.2.1"])

    assert read(allowed_ips=[ip_network("10.0.0.0/8"), ip_interface("192.0.2.1/32")]).allowed_ips == expected
    assert read(denied_ips="10.0.0.0/8,192.0.2.1").denied_ips == expected


def test_half_a_character_is_replaced():
    assert read(user_id="a\ud800b").user_id == "a?b"


def test_numbers_may_be_text():
    found = read(
        total_quota="9007199254740993",
        used_quota=Decimal(12),
        balance="2.5",
        limits='{"requests_per_second": "2.5", "burst_size": 3.0, "tokens_per_minute": null}',
    )

    assert found.quota == Quota(9007199254740993, 12)
    assert found.balance == 2.5
    assert found.limits == KeyLimits(requests_per_second=2.5, burst_size=3)


def test_without_a_total_there_is_no_quota():
    assert read(total_quota=0, used_quota=10).quota is None
    assert read(used_quota=10).quota is None


def test_what_else_stands_in_a_record_is_of_no_concern():
    assert read(id=5, colour="red", created_at=object()) == read()


BAD = [
    ("starts_at", "soon"),
    ("expires_at", [1]),
    ("expires_at", float("nan")),
    ("expires_at", float("inf")),
    ("expires_at", 1767225600000),
    ("allowed_models", {"a": 1}),
    ("allowed_models", "[1]"),
    ("allowed_models", "[oops"),
    ("allowed_ips", "ten"),
    ("denied_ips", ["10.0.0.0/99"]),
    ("denied_ips", 5),
    ("limits", "5"),
    ("limits", {"requests_per_hour": 1}),
    ("limits", {"requests_per_second": -1}),
    ("limits", {"requests_per_second": "inf"}),
    ("limits", {"max_concurrent": "2.5"}),
    ("labels", "[]"),
    ("labels", {"a": [1]}),
    ("total_quota", "many"),
    ("total_quota", -1),
    ("total_quota", "inf"),
    ("total_quota", float("nan")),
    ("balance", "nan"),
    ("balance", "inf"),
    ("name", ["a"]),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_what_cannot_be_read_is_an_error_that_names_the_field_alone(field, value):
    with pytest.raises(BadRecord) as raised:
        read(**{field: value})

    inside = next(iter(value)) if isinstance(value, dict) else field
    assert str(raised.value) in (f"{field} cannot be read", f"{inside} cannot be read")


@pytest.mark.parametrize(("field", "value"), [("quota_unit", "euros"), ("quota_reset_period", "hourly")])
def test_words_of_a_quota_are_known_ones(field, value):
    with pytest.raises(BadRecord, match=field):
        read(total_quota=5, **{field: value})


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()),
    st.dictionaries(st.text(), st.integers()), st.datetimes(), st.decimals(),
)  # fmt: skip
FIELDS = (
    "status",
    "expires_at",
    "starts_at",
    "allowed_models",
    "denied_ips",
    "limits",
    "labels",
    "total_quota",
    "balance",
)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_whatever_is_written_it_is_understood_or_refused(record):
    try:
        found = read(**record)
    except BadRecord:
        return

    assert found.status in ("active", "disabled", "quota_exceeded", "expired")
    assert found.expires_at is None or found.expires_at > 0
    assert found.quota is None or found.quota.total > 0


def test_a_moment_far_away_is_still_one():
    assert moment("9999-12-31T23:59:59Z") == 253402300799.0
