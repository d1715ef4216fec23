"""A minute of load on a whole fleet, one gateway of which is killed in its middle.

Two hundred clients with four keys come through HAProxy to two gateways that share
Redis and PostgreSQL. Nothing here depends on how fast the machine is: what a limit
may have let in is worked out from when the clients asked and were answered.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from time import monotonic

import pytest
from kit.client import Ended, RawClient, Silent
from kit.eventually import eventually
from kit.fleet import Fleet
from kit.servers import HAPROXY, POSTGRES, REDIS
from kit.wire import post
from redis.asyncio import Redis

pytestmark = pytest.mark.skipif(
    None in (REDIS, POSTGRES, HAPROXY), reason="needs redis-server, postgresql and haproxy"
)

SECONDS = 60.0
KILL_AFTER = 15.0

RATE, BURST = 50, 50
TOKENS = 10_000
SLOTS = 8
UNLIMITED = {"requests_per_minute": 0, "tokens_per_minute": 0, "max_concurrent": 0}

# By key: how many clients it has, and its own limits.
KEYS = {
    "rate": (90, {"requests_per_second": RATE, "burst_size": BURST}),
    "tokens": (60, {"tokens_per_minute": TOKENS}),
    "slots": (30, {"max_concurrent": SLOTS}),
    "free": (20, {}),
}

# Of a gateway that is killed: records are safe once they are on the disk, which takes a moment.
UNWRITTEN_SECONDS = 2.0
# Twice the lease of a slot that a killed process held, which is what takes longest.
PATIENCE = 60.0


@dataclass
class Seen:
    """One request as its client saw it; status 0 where the connection broke."""

    id: str
    client: tuple[str, int]
    sent: float
    ended: float
    status: int
    tokens: int = 0
    gateway: bytes = b""
    remaining: int = -1

    @property
    def is_lost(self) -> bool:
        """Nobody can tell whether a limit counted it."""
        return self.status not in (200, 429)

    @property
    def is_turned_away(self) -> bool:
        """By a gateway, for want of an answer from Redis or PostgreSQL: a machine may be that slow."""
        return self.status == 503 and bool(self.gateway)


class Client:
    """Asks again and again, whatever it is told."""

    def __init__(self, fleet, key, number, ids):
        self._fleet, self._key, self._number, self._ids = fleet, key, number, ids
        self.seen: list[Seen] = []

    async def run(self, end):
        while monotonic() < end:
            with suppress(OSError):
                async with await RawClient.connect(self._fleet.port) as connection:
                    while monotonic() < end and await self._ask(connection):  # noqa: ASYNC110
                        await asyncio.sleep(self._pause())

    def _pause(self):
        return 0.4 if self.seen[-1].status == 429 else 0.1

    async def _ask(self, connection):
        """Whether the connection can be used again."""
        request_id = f"{self._key}-{next(self._ids)}"
        model = "title" if self._key == "slots" else "coder"
        # 46 estimated, 40 to 46 used
        used = str(10 + len(self.seen) % 7)
        body = {"model": model, "max_tokens": 16, "user": used, "messages": [], "x": ""}
        body["x"] = "x" * (120 - len(json.dumps(body)))
        headers = (b"Authorization: Bearer " + self._key.encode(), b"x-request-id: " + request_id.encode())
        one = Seen(request_id, (self._key, self._number), monotonic(), 0.0, 0)
        self.seen.append(one)
        try:
            request = post(b"/v1/chat/completions", json.dumps(body).encode(), *headers)
            answer = await connection.ask(request, PATIENCE)
        except (Ended, Silent):
            one.ended = monotonic()
            return False
        one.ended = monotonic()
        one.gateway = answer.get(b"x-served-by") or b""
        if answer.is_complete:
            one.status = answer.status
            one.remaining = int(answer.get(b"x-ratelimit-remaining-requests") or -1)
            one.tokens = total_of(answer.body) if one.status == 200 else 0
        return answer.is_complete and answer.get(b"connection") != b"close"


def total_of(body):
    last = body.split(b"data: ")[-2] if body.startswith(b"data: ") else body
    return json.loads(last)["usage"]["total_tokens"]


@dataclass
class Death:
    begun: float = 0.0
    ended: float = 0.0
    replaced: float = 0.0


async def kill_one(fleet, death):
    """kill -9, and a new start in the same place."""
    await asyncio.sleep(KILL_AFTER)
    victim = fleet.gateways[1]
    death.begun = monotonic()
    victim.kill()
    death.ended = monotonic()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(victim.start)
    death.replaced = monotonic()


async def load(fleet):
    ids, death = count(), Death()
    clients = {
        key: [Client(fleet, key, number, ids) for number in range(many)] for key, (many, _) in KEYS.items()
    }
    end = monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        group.create_task(kill_one(fleet, death))
        for one in chain(*clients.values()):
            group.create_task(one.run(end))
    seen = {key: [each for one in some for each in one.seen] for key, some in clients.items()}
    return seen, death


async def test_a_minute_of_load_is_limited_and_accounted_for_exactly(tmp_path):
    changes = {"rate_limit": {"on_store_failure": "fail_closed"}}
    async with Fleet(tmp_path, changes) as fleet:
        for key, (_, limits) in KEYS.items():
            quota = {"total_quota": 10**9} if key == "free" else {}
            await fleet.add_key(key, limits={**UNLIMITED, **limits}, **quota)
        seen, death = await load(fleet)

        everything = [*chain(*seen.values())]
        assert {one.status for one in everything} <= {0, 200, 429, 502, 503}
        assert len({one.gateway for one in everything if one.status == 200}) == 2
        requests_are_limited(seen["rate"])
        tokens_are_limited(seen["tokens"])
        assert fleet.streams.most == SLOTS
        await no_slot_leaks(fleet)
        a_death_costs_only_what_ran(everything, death)
        await records_are_complete(fleet, everything, death)
        await a_quota_is_what_was_recorded(fleet)


def requests_are_limited(seen):
    """Between the moment when the bucket was last full and the end: its content, and what flowed in."""
    admitted = [one for one in seen if one.status == 200]
    lost = [one for one in seen if one.is_lost]
    decided = [one for one in seen if not one.is_lost]
    first, last = min(one.sent for one in decided), max(one.ended for one in decided)
    flow = RATE * (last - first)
    assert len(admitted) <= BURST + flow + 1
    assert any(one.status == 429 for one in seen)

    full = max((one for one in admitted if one.remaining == BURST - 1), key=lambda one: one.ended)
    end = max(decided, key=lambda one: one.sent)
    after = [one for one in admitted + lost if one is not full and one.ended >= full.sent]
    surely = BURST - 1 + RATE * (end.sent - full.ended) - (end.remaining + 1)
    print(f"requests: {len(admitted)} of {BURST + flow:.1f} at most, {len(after)} of {surely:.1f} at least")
    assert len(after) >= surely * 0.99


def tokens_are_limited(seen):
    """The estimate is never below what was used: so nothing is let in that does not fit."""
    used = sum(one.tokens for one in seen)
    first, last = min(one.sent for one in seen), max(one.ended for one in seen)
    most = TOKENS + TOKENS / 60 * (last - first)
    print(f"tokens: {used} of {most:.0f} at most")
    assert used <= most
    assert any(one.status == 429 for one in seen)


async def no_slot_leaks(fleet):
    """What the killed process held is free after its lease, and nothing else is held for ever."""
    async with Redis(unix_socket_path=fleet.redis.socket) as client:

        async def is_free():
            seconds, _ = await client.time()
            names = [name async for name in client.scan_iter("*:slots")]
            return not any([await client.zcount(name, seconds, "+inf") for name in names])

        await eventually(is_free, "every slot is free", PATIENCE)
    fleet.streams.most = 0
    async with asyncio.TaskGroup() as group:
        ids = count()
        clients = [Client(fleet, "slots", number, ids) for number in range(2 * SLOTS)]
        tasks = [group.create_task(one.run(monotonic() + PATIENCE)) for one in clients]
        await eventually(lambda: fleet.streams.most == SLOTS, "every slot can be used", PATIENCE)
        for task in tasks:
            task.cancel()


def a_death_costs_only_what_ran(everything, death):
    lost = [one for one in everything if one.is_lost and not one.is_turned_away]
    print(f"lost by the death: {len(lost)} of {len(everything)}")
    assert all(one.ended >= death.begun and one.sent <= death.replaced for one in lost)
    assert len(lost) <= sum(many for many, _ in KEYS.values())


async def records_are_complete(fleet, everything, death):
    """Each answer that a client has is in PostgreSQL once, with its tokens; and nothing else is."""
    answered = {one.id: one for one in everything if one.status == 200}

    def may_be_missing(one):
        # Answered by the one that was killed, just before: its client may have read that after the death.
        is_of_the_victim = one.gateway == b"gateway-2" and one.sent <= death.ended
        return is_of_the_victim and one.ended > death.begun - UNWRITTEN_SECONDS

    async def has_come():
        here = {record["request_id"] for record in await fleet.records()}
        return all(one.id in here or may_be_missing(one) for one in answered.values())

    await eventually(has_come, "every record is in PostgreSQL", PATIENCE)
    records = await fleet.records()
    ids = [record["request_id"] for record in records if not record["request_id"].startswith("slots")]
    assert len(ids) == len(set(ids))
    assert set(ids) <= {one.id for one in everything if one.status == 200 or one.is_lost}
    here = [
        record for record in records if record["request_id"] in answered and record["outcome"] == "complete"
    ]
    missing = set(answered) - {record["request_id"] for record in here}
    print(f"records: {len(here)} of {len(answered)}")
    assert all(may_be_missing(answered[one]) for one in missing)
    assert all(record["total_tokens"] == answered[record["request_id"]].tokens for record in here)


async def a_quota_is_what_was_recorded(fleet):
    """Debited by two processes: what the records say, but for what the killed one had not told yet."""
    recorded = sum(r["total_tokens"] or 0 for r in await fleet.records() if r["key_name"] == "free")
    moment = 20 * 46  # of every client one request, at most

    async def is_told():
        return abs(await fleet.used_quota("free") - recorded) <= moment

    await eventually(is_told, "the quota is debited", PATIENCE)
    print(f"quota: {await fleet.used_quota('free')} debited, {recorded} recorded")
