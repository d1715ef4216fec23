"""Gateways for the probes: started once for each configuration, ended with the session."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from kit.gateway import ROOT, Gateway, Settings, free_port, settings

from proxy.compiled import stale

# Whether a property holds is no matter of how busy the machine is.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


def pytest_configure() -> None:
    if changed := stale(ROOT / "proxy"):
        pytest.exit(f"{changed} was changed after it was compiled: `make compile` or `make interpreted`", 1)


def pytest_report_header() -> str:
    return f"byte path: {'compiled' if list((ROOT / 'proxy').glob('*.so')) else 'interpreted'}"


class Gateways:
    """Lends running gateways; equal configurations share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Gateway] = {}
        self.backend_port = free_port()

    def get(self, configuration: Settings) -> Gateway:
        key = json.dumps(configuration, sort_keys=True)
        gateway = self._running.get(key)
        if gateway is not None and not gateway.is_running:
            raise AssertionError(f"a shared gateway died: {gateway.output[-1500:]}")
        if gateway is None:
            gateway = Gateway(self._folder / f"gateway-{len(self._running)}", configuration).start()
            self._running[key] = gateway
        return gateway

    def alarms(self) -> list[str]:
        return [alarm for gateway in self._running.values() for alarm in gateway.new_alarms()]

    def stop(self) -> list[int]:
        return [gateway.stop() for gateway in self._running.values()]


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    pool = Gateways(tmp_path_factory.mktemp("gateways"))
    yield pool
    assert set(pool.stop()) <= {0}
    assert pool.alarms() == []


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A gateway of a test's own: `new_gateway(configuration)`; it is ended after the test."""
    started: list[Gateway] = []

    def start(configuration: Settings, **options: object) -> Gateway:
        gateway = Gateway(tmp_path / f"own-{len(started)}", configuration, **options)  # type: ignore[arg-type]
        started.append(gateway)
        return gateway.start()

    yield start
    for gateway in started:
        gateway.kill()
    assert [alarm for gateway in started for alarm in gateway.new_alarms()] == []


@pytest.fixture
def gateway(gateways: Gateways) -> Iterator[Gateway]:
    """The gateway most probes share: no keys, no limits, one backend at `backend_port`, long time-outs."""
    shared = gateways.get(settings(gateways.backend_port))
    yield shared
    assert shared.new_alarms() == []


@pytest.fixture
def backend_port(gateways: Gateways) -> int:
    return gateways.backend_port
