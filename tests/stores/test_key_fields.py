"""What may be said of a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import digest
from proxy.stores.key_fields import MAX_ITEMS, MAX_TEXT, MAX_WHOLE, BadFields, columns_of, shown
from proxy.stores.record import credential_of

GOOD = [
    ("name", "Älice 1", "Älice 1"),
    ("name", None, ""),
    ("status", 1, "disabled"),
    ("status", "expired", "expired"),
    ("status", "", "active"),
    ("expires_at", "2026-01-01T00:00:00Z", 1767225600.0),
    ("expires_at", 1767225600, 1767225600.0),
    ("expires_at", "", None),
    ("expires_at", 0, None),
    ("allowed_models", ["a", "b*"], '["a","b*"]'),
    ("allowed_models", [], "[]"),
    ("allowed_ips", ["10.0.0.0/8"], '["10.0.0.0/8"]'),
    ("limits", {"burst_size": 3, "requests_per_second": 0.5}, '{"burst_size":3,"requests_per_second":0.5}'),
    ("limits", {}, "{}"),
    ("limits", None, None),
    ("labels", {"a": "b"}, '{"a":"b"}'),
    ("total_quota", 5, 5),
    ("total_quota", "", 0),
    ("balance", -2, -2.0),
    ("quota_unit", "requests", "requests"),
    ("quota_reset_period", "weekly", "weekly"),
]


@pytest.mark.parametrize(("field", "value", "column"), GOOD)
def test_a_field_becomes_a_column(field, value, column):
    assert columns_of({field: value}) == {field: column}


BAD = [
    ("name", 5),
    ("name", "a" * (MAX_TEXT + 1)),
    ("name", "a\nb"),
    ("name", "a\x1b[2J"),
    ("status", 4),
    ("status", -1),
    ("status", True),
    ("status", "gone"),
    ("status", ["active"]),
    ("expires_at", "soon"),
    ("expires_at", True),
    ("expires_at", [1]),
    ("expires_at", 1e400),
    ("allowed_models", "a"),
    ("allowed_models", [1]),
    ("allowed_models", ["a"] * (MAX_ITEMS + 1)),
    ("allowed_ips", ["ten"]),
    ("denied_ips", [""]),
    ("limits", {"requests_per_hour": 1}),
    ("limits", {"requests_per_second": -1}),
    ("limits", {"requests_per_second": True}),
    ("limits", {"requests_per_second": float("nan")}),
    ("limits", {"max_concurrent": 1.5}),
    ("limits", [1]),
    ("labels", {"a": 1}),
    ("labels", []),
    ("total_quota", -1),
    ("total_quota", 1.5),
    ("total_quota", "5"),
    ("total_quota", MAX_WHOLE + 1),
    ("used_quota", True),
    ("balance", "5"),
    ("balance", float("inf")),
    ("quota_unit", "euros"),
    ("quota_unit", ["tokens"]),
    ("quota_reset_period", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_what_does_not_fit_is_refused_by_name_and_not_shown(field, value):
    with pytest.raises(BadFields) as raised:
        columns_of({field: value})

    assert str(raised.value).startswith(f"{field} must be ")


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(BadFields) as raised:
        columns_of({"name": 5, "colour": "red", "sk-canary-0123456789": 1, "status": "active"})

    assert len(raised.value.problems) == 3
    assert "colour" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "field", ["key_id", "created_at", "last_reset_at", "digest", "rowid", "name = 1; --"]
)
def test_what_the_database_keeps_for_itself_cannot_be_set(field):
    with pytest.raises(BadFields):
        columns_of({field: 1})


def test_a_key_cannot_end_before_it_begins():
    with pytest.raises(BadFields, match="later"):
        columns_of({"starts_at": 2000000000, "expires_at": 2000000000})


def test_what_is_shown_can_be_said_again():
    fields = {
        "name": "a",
        "status": "disabled",
        "expires_at": "2026-01-01T00:00:00Z",
        "allowed_models": ["a"],
        "limits": {"burst_size": 3},
        "labels": {"a": "b"},
        "total_quota": 5,
        "balance": 1.5,
    }

    assert shown(columns_of(fields)) == fields


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = [name for name, *_ in GOOD]


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), JSON, max_size=4))
def test_whatever_is_said_is_refused_or_can_be_read_back(fields):
    try:
        columns = columns_of(fields)
    except BadFields:
        return

    credential_of(columns, digest(b"key"), source="s")
