"""Which accounts a request is asked of, where their levels are kept elsewhere."""

from proxy.limiters.limits import Subject
from proxy.limiters.plans import Plans
from proxy.limiters.spec import LimitSpec, ScopeSpecs

SPEC = LimitSpec(requests_per_minute=5)
EVERY = Plans(ScopeSpecs(SPEC, SPEC, SPEC, SPEC, SPEC))


def names(plans, subject):
    return [name for name, _ in plans.of(subject)]


def test_every_scope_is_asked_in_order_under_a_name_of_its_own():
    subject = Subject("x", "x", "x", "2001:db8::1")

    assert names(EVERY, subject) == [
        "global:everybody",
        "per_key:x",
        "per_user:x",
        "per_model:x",
        "per_ip:20010db800000000::/64",
    ]


def test_what_a_request_does_not_have_is_not_asked():
    assert names(EVERY, Subject(ip="10.0.0.1")) == ["global:everybody", "per_ip:10.0.0.1"]
    assert names(Plans(ScopeSpecs()), Subject("x", "x", "x", "x")) == []
    assert names(Plans(ScopeSpecs(global_=LimitSpec(requests_per_second=0))), Subject("x")) == []


def test_a_keys_own_limits_go_over_those_of_every_key():
    plans = Plans(ScopeSpecs(per_key=SPEC))

    ((_, plan),) = plans.of(Subject("x", limits=LimitSpec(max_concurrent=3)))
    assert (plan.max_concurrent, plan.requests[0].burst) == (3, 5)
    assert plans.of(Subject("x", limits=LimitSpec(requests_per_minute=0))) == []
    assert len(Plans(ScopeSpecs()).of(Subject("x", limits=SPEC))) == 1


def test_tokens_are_counted_only_where_they_are_limited():
    assert not EVERY.counts_tokens(Subject("x"))
    assert EVERY.counts_tokens(Subject("x", limits=LimitSpec(tokens_per_minute=1)))
    assert Plans(ScopeSpecs(per_ip=LimitSpec(tokens_per_minute=1))).counts_tokens(Subject())
