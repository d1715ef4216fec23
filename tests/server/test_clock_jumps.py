"""The wall clock is set while the gateway runs: what measures spans goes on, what names dates follows it.

libfaketime lies to the gateway alone, about the time of day and not about the monotonic clock, as
settimeofday(2) would.
"""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.receiver import Receiver
from kit.wire import answer, chunk, chunked, get, post, sse_head

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime)")

HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
JUMPS = pytest.mark.parametrize("jump", [HOUR, YEAR, -HOUR, -YEAR], ids=["+1h", "+1y", "-1h", "-1y"])

KEY = b"Authorization: Bearer sk-clock-0123456789abcdef"
LIMITED = b"Authorization: Bearer sk-limited-0123456789abcdef"
STREAM = b'{"model":"m","stream":true}'


class WallClock:
    """How far the gateway's time of day is from ours."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = timedelta()
        self.set(self.offset)
        self.environ = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name until 0.9.6
        }

    def set(self, offset: timedelta) -> None:
        self.offset = offset
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset.total_seconds():+.0f}\n")
        fresh.replace(self._file)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


@pytest.fixture
def wall(tmp_path):
    return WallClock(tmp_path / "wall-clock")


def keyed(*keys, **changes):
    auth = {"enabled": True, "pipeline": [{"name": "local", "type": "static", "keys": list(keys)}]}
    return {"auth": auth, **changes}


def hooked(port, tmp_path, **options):
    reporter = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{port}/u", **options}
    return {"enabled": True, "reporters": [reporter], "spool": {"path": str(tmp_path / "usage.db")}}


async def hours_off(gateway, wall):
    """The gateway's idea of the time, as its access line has it; how far from what was set."""
    await ask(gateway.port, get(b"/health"))

    def line():
        lines = [line for line in gateway.output.splitlines() if '"path":"/health"' in line]
        return lines[-1] if lines else ""

    await eventually(lambda: bool(line()), "the access line")
    said = datetime.fromisoformat(line().split('"time":"', 1)[1].split('"', 1)[0])
    return abs(said - wall.now()) / HOUR


@JUMPS
async def test_what_runs_and_what_is_limited_does_not_notice(new_gateway, upstream, wall, jump):
    limited = {"key": LIMITED.decode().split()[-1], "limits": {"requests_per_minute": 1, "burst_size": 1}}
    keys = keyed({"key": KEY.decode().split()[-1]}, limited, rate_limit={"enabled": True})
    routing = {"timeouts": {"first_byte": "30s", "idle": "30s", "total": "60s"}}
    gateway = new_gateway(settings(upstream.port, routing=routing, **keys), environ=wall.environ)
    go_on = asyncio.Event()

    async def script(connection, request):
        if request.target == b"/v1/held":
            connection.write(sse_head() + chunk(b"before"))
            await go_on.wait()
            connection.write(chunked(b"behind"))
        else:
            connection.write(answer())

    upstream.on_request = script
    async with await RawClient.connect(gateway.port) as stream, await RawClient.connect(gateway.port) as idle:
        await stream.send(post(b"/v1/held", STREAM, KEY))
        await stream.read_until(b"before")
        assert (await idle.ask(post(b"/v1/x", b"{}", LIMITED))).status == 200
        assert (await idle.ask(post(b"/v1/x", b"{}", LIMITED))).status == 429

        wall.set(jump)
        assert await hours_off(gateway, wall) < 0.5
        await asyncio.sleep(0.5)  # several rounds of everything that looks at a clock

        assert (await idle.ask(post(b"/v1/x", b"{}", LIMITED))).status == 429
        assert (await idle.ask(post(b"/v1/x", b"{}", KEY))).status == 200
        go_on.set()
        assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"behind\r\n0\r\n\r\n")


@JUMPS
async def test_a_key_is_valid_when_the_wall_clock_says_so(new_gateway, upstream, wall, jump):
    now = datetime.now(UTC)
    bounds = {"starts_at": (now - HOUR / 2).isoformat(), "expires_at": (now + HOUR / 2).isoformat()}
    gateway = new_gateway(
        settings(upstream.port, **keyed({"key": KEY.decode().split()[-1], **bounds})), environ=wall.environ
    )

    async def status():
        return (await ask(gateway.port, post(b"/v1/x", b"{}", KEY))).status

    statuses = []
    for offset in (timedelta(), jump, timedelta()):
        wall.set(offset)
        statuses.append(await status())

    assert statuses == [200, 403, 200]


@JUMPS
async def test_records_have_the_wall_clocks_time_and_true_spans(new_gateway, upstream, wall, jump, tmp_path):
    go_on = asyncio.Event()

    async def script(connection, request):
        if request.target == b"/v1/held":
            await go_on.wait()
        connection.write(answer())

    upstream.on_request = script
    async with Receiver() as receiver:
        gateway = new_gateway(
            settings(upstream.port, usage=hooked(receiver.port, tmp_path)), environ=wall.environ
        )
        begun = datetime.now(UTC)
        held = asyncio.ensure_future(ask(gateway.port, post(b"/v1/held")))
        await upstream.wait_requests(1)

        wall.set(jump)
        assert (await ask(gateway.port, post(b"/v1/after"))).status == 200
        go_on.set()
        assert (await held).status == 200
        await receiver.wait_records(2)

    records = {record["path"]: record for record in receiver.records}
    times = {path: datetime.fromisoformat(record["timestamp"]) for path, record in records.items()}
    assert abs(times["/v1/held"] - begun) < HOUR / 2
    assert abs(times["/v1/after"] - begun - jump) < HOUR / 2
    for record in records.values():
        assert 0 <= record["ttfb_ms"] <= record["latency_ms"] < 600_000


@JUMPS
async def test_what_waits_in_the_spool_does_not_grow_old(new_gateway, upstream, wall, jump, tmp_path):
    """Not while the gateway runs, and not over a restart either: what waited is offered before it goes."""
    port = free_port()
    configuration = settings(upstream.port, usage=hooked(port, tmp_path))
    gateway = new_gateway(configuration, environ=wall.environ)
    for _ in range(5):
        assert (await ask(gateway.port, post())).status == 200

    wall.set(jump)
    for _ in range(5):
        assert (await ask(gateway.port, post())).status == 200
    await asyncio.sleep(2.5)  # the spool is tidied every second
    assert await asyncio.to_thread(gateway.stop) == 0
    gateway.start()
    await asyncio.sleep(2.5)
    wall.set(timedelta())

    async with Receiver(port=port) as receiver:
        await receiver.wait_records(10, 40)
    metrics = (await ask(gateway.port, get(b"/metrics"))).body.decode()
    assert 'llmproxy_usage_dropped_total{sink="hook"} 0.0' in metrics


@JUMPS
async def test_retention_deletes_nothing_that_became_old_by_a_jump(
    new_gateway, upstream, wall, jump, tmp_path
):
    table = {"name": "kept", "type": "builtin", "path": str(tmp_path / "records.db"), "retention_days": 30}
    usage = {"enabled": True, "reporters": [table], "spool": {"path": str(tmp_path / "usage.db")}}
    gateway = new_gateway(settings(upstream.port, usage=usage), environ=wall.environ)

    def rows():
        try:
            with closing(sqlite3.connect(f"file:{tmp_path}/records.db?mode=ro", uri=True)) as database:
                return database.execute("SELECT count(*) FROM usage_records").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0

    assert (await ask(gateway.port, post())).status == 200
    await eventually(lambda: rows() == 1, "the first row")
    wall.set(jump)
    assert (await ask(gateway.port, post())).status == 200
    await eventually(lambda: rows() == 2, "both rows")


async def test_a_quota_begins_anew_once_a_day_however_the_clock_goes(new_gateway, upstream, wall):
    quota = {"total_quota": 2, "quota_unit": "requests", "quota_reset_period": "daily"}
    # At noon, so that an hour is no new day.
    noon = datetime.now(UTC).replace(hour=12, minute=0) - datetime.now(UTC)
    wall.set(noon)
    gateway = new_gateway(
        settings(upstream.port, **keyed({"key": KEY.decode().split()[-1], **quota})), environ=wall.environ
    )

    async def served():
        """How many of three are."""
        return [(await ask(gateway.port, post(b"/v1/x", b"{}", KEY))).status for _ in range(3)].count(200)

    seen = []
    for offset in (timedelta(), HOUR, -HOUR, DAY, timedelta(), DAY, 2 * DAY, YEAR, 3 * DAY, 4 * DAY):
        wall.set(noon + offset)
        seen.append(await served())

    # An hour is nothing; a day back is nothing either, and coming forward again repeats nothing. After a
    # year by mistake the quota does not stay spent for a year.
    assert seen == [2, 0, 0, 2, 0, 0, 2, 2, 2, 2]
