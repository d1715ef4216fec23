"""Generations share what did not change, and close what nobody wants any more."""

from dataclasses import replace

from proxy.balancers.round_robin import RoundRobin
from proxy.health.breaker import BreakerSettings
from proxy.health.outcome import Outcome
from proxy.upstream.endpoint import Endpoint, EndpointSpec
from proxy.upstream.registry import EndpointRegistry, HealthSettings

SPEC = EndpointSpec("vllm", "http", "127.0.0.1", 8001)
HEALTH = HealthSettings(BreakerSettings(failures=1))


class Wires:
    def __init__(self, endpoint: Endpoint) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_equal_specs_share_one_endpoint_until_the_last_claim_goes() -> None:
    registry = EndpointRegistry(Wires)
    old = registry.claim("default", SPEC, HEALTH)
    new = registry.claim("default", SPEC, HEALTH)

    assert new is old
    registry.release("default", old, HEALTH)
    assert not new.connections.is_closed
    registry.release("default", new, HEALTH)
    assert new.connections.is_closed
    assert len(registry) == 0


def test_a_changed_backend_keeps_what_is_known_about_its_server() -> None:
    registry = EndpointRegistry(Wires)
    old = registry.claim("default", SPEC, HEALTH)
    old.load.begin()
    old.vitals.finished(Outcome.SERVER_ERROR, 0.0, term=old.vitals.breaker.begin(), first_byte=None)
    old.load.begin()

    new = registry.claim("default", replace(SPEC, weight=5.0), HEALTH)

    assert new is not old
    assert new.connections is not old.connections
    assert (new.weight, old.weight) == (5.0, 1.0)
    assert new.in_flight == 1
    assert not new.admits(1.0)


def test_changed_rules_start_with_a_clean_sheet_but_know_what_is_running() -> None:
    registry = EndpointRegistry(Wires)
    old = registry.claim("default", SPEC, HEALTH)
    old.vitals.finished(Outcome.SERVER_ERROR, 0.0, term=old.vitals.breaker.begin(), first_byte=None)
    old.load.in_flight = 3

    new = registry.claim("default", SPEC, HealthSettings(BreakerSettings(failures=7)))

    assert new.admits(1.0)
    assert new.in_flight == 3


def test_other_pools_and_other_addresses_know_nothing_of_each_other() -> None:
    registry = EndpointRegistry(Wires)
    one = registry.claim("default", SPEC, HEALTH)

    assert registry.claim("spare", SPEC, HEALTH).vitals is not one.vitals
    assert registry.claim("default", replace(SPEC, port=8002), HEALTH).vitals is not one.vitals


def test_releasing_what_was_never_claimed_does_nothing() -> None:
    registry = EndpointRegistry(Wires)
    mine = registry.claim("default", SPEC, HEALTH)

    registry.release("spare", mine, HEALTH)

    assert not mine.connections.is_closed


def test_close_closes_everything() -> None:
    registry = EndpointRegistry(Wires)
    endpoints = [registry.claim("default", replace(SPEC, port=port), HEALTH) for port in range(1, 4)]

    registry.close()

    assert all(endpoint.connections.is_closed for endpoint in endpoints)


def test_a_pools_balancer_outlives_a_reload_that_leaves_its_kind() -> None:
    registry = EndpointRegistry(Wires)

    def make() -> RoundRobin:
        return RoundRobin(lambda: 0.0)

    first = registry.balancer("default", ("round_robin", 1.25), make)

    assert registry.balancer("default", ("round_robin", 1.25), make) is first
    assert registry.balancer("spare", ("round_robin", 1.25), make) is not first
    assert registry.balancer("default", ("round_robin", None), make) is not first
