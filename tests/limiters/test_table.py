"""Bounded tables that forget only what nobody would miss."""

import pytest

from proxy.limiters.spec import LimitSpec
from proxy.limiters.table import AddressTable, Table, network

SPEC = LimitSpec(requests_per_minute=60, tokens_per_minute=60)


def table(max_subjects=3):
    return Table("per_ip", SPEC, max_subjects)


def test_idle_subjects_make_room_for_new_ones():
    accounts = table()

    for number in range(1000):
        accounts.account(f"10.0.0.{number}", None, 0.0)

    assert len(accounts) == 3


def test_what_all_subjects_have_in_common_is_held_once():
    accounts = table(1000)

    plans = {id(accounts.account(str(number), None, 0.0).plan) for number in range(1000)}

    assert len(plans) == 1


def test_an_open_slot_is_never_forgotten():
    accounts = table()
    held = accounts.account("held", None, 0.0)
    held.take(0)

    for number in range(100):
        accounts.account(str(number), None, 1000.0)

    assert accounts.account("held", None, 1000.0) is held
    assert accounts.total.open == 1


def test_a_debt_is_never_forgotten():
    accounts = table()
    debtor = accounts.account("debtor", None, 0.0)
    debtor.take(100)
    debtor.release(1.0)

    for number in range(100):
        accounts.account(str(number), None, 1.0)

    assert accounts.account("debtor", None, 1.0) is debtor


def test_a_paid_debt_is_forgotten():
    accounts = table()
    debtor = accounts.account("debtor", None, 0.0)
    debtor.take(100)
    debtor.release(1.0)

    for number in range(100):
        accounts.account(str(number), None, 1000.0)

    assert accounts.account("debtor", None, 1000.0) is not debtor


def test_what_is_in_use_outlives_what_is_idle():
    accounts = table()
    used = accounts.account("used", None, 0.0)
    used.take(1)
    used.release(1.0)

    for number in range(100):
        accounts.account(str(number), None, 0.5)

    assert accounts.account("used", None, 0.5) is used


def test_among_subjects_that_all_used_a_part_of_their_burst_the_oldest_goes():
    accounts = table()
    for number in range(100):
        account = accounts.account(str(number), None, 0.0)
        account.take(1)
        account.release(1.0)

    assert len(accounts) == 3


def test_a_table_outgrows_its_bound_by_open_slots_and_shrinks_again():
    accounts = table()
    opened = []
    for number in range(50):
        opened.append(accounts.account(str(number), None, 0.0))
        opened[-1].take(0)
    assert len(accounts) == 50

    for account in opened:
        account.release(1.0)
    for number in range(100):
        accounts.account(f"new {number}", None, 1000.0)

    assert len(accounts) == 3
    assert accounts.total.open == 0


def test_no_limits_no_account():
    accounts = Table("per_key", None)

    assert accounts.account("alice", None, 0.0) is None
    assert accounts.account("bob", LimitSpec(max_concurrent=1), 0.0) is not None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("2001:db8:1:2:3:4:5:6", "20010db800010002::/64"),
        ("2001:db8:1:2::", "20010db800010002::/64"),
        ("2001:db8:1:3::1", "20010db800010003::/64"),
        ("::1", "0::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80000000000000::/64"),
        ("no:address", "no:address"),
    ],
)
def test_ipv6_counts_by_network(address, expected):
    assert network(address) == expected


def test_two_hosts_of_one_ipv6_network_share_an_account():
    accounts = AddressTable("per_ip", SPEC)

    first = accounts.account("2001:db8::1", None, 0.0)

    assert accounts.account("2001:db8::2", None, 0.0) is first
    assert accounts.account("10.0.0.1", None, 0.0) is not first
