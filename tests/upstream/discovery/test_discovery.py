"""Pools in step with their sources: joined, in order, and steady when sources fail."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import msgspec
import pytest

from proxy.config import schema_pools as schema
from proxy.upstream.discovery import backends_of
from proxy.upstream.discovery.base import Found, SourceFailed
from proxy.upstream.discovery.discovery import Discovery, Watched, joined, with_names
from proxy.upstream.discovery.sources import make_discovery
from proxy.upstream.fetch import Fetcher

A, B, C = Found("http://a:1"), Found("http://b:1"), Found("http://c:1")


class Script:
    """A source that says what it is told to, one thing after the other; the last goes on."""

    def __init__(self, *says: Sequence[Found] | Exception) -> None:
        self._says = list(says)
        self.looks = 0
        self.is_closed = False

    async def find(self) -> Sequence[Found]:
        self.looks += 1
        said = self._says.pop(0) if len(self._says) > 1 else self._says[0]
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self) -> None:
        self.is_closed = True


Reports = list[tuple[str, tuple[Found, ...]]]


def discovery(
    *scripts: Script, takes_first: bool = False, interval: float = 0.005
) -> tuple[Discovery, Reports]:
    reports: Reports = []
    made = Discovery(
        [Watched(f"s{n}", script, "default", interval) for n, script in enumerate(scripts)],
        takes_first=takes_first,
        changed=lambda pool, found: reports.append((pool, found)),
        chance=lambda: 0.5,
    )
    return made, reports


async def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 5.0
    while not condition():
        assert monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.002)


async def test_all_sources_are_joined_each_address_once() -> None:
    made, reports = discovery(Script([A, B]), Script([Found("http://b:1/", weight=9), C]), interval=60)

    await made.start()
    await made.close()

    assert reports == [("default", (A, B, C))]


async def test_the_first_that_names_anybody_is_taken() -> None:
    made, reports = discovery(
        Script(SourceFailed("down")), Script([]), Script([A]), Script([B]), takes_first=True, interval=60
    )

    await made.start()
    await made.close()

    assert reports == [("default", (A,))]


async def test_changes_are_reported_and_only_changes() -> None:
    script = Script([A], [A], [A, B], [A, B], [B])
    made, reports = discovery(script)

    await made.start()
    await until(lambda: script.looks >= 8)
    await made.close()

    assert [found for _, found in reports] == [(A,), (A, B), (B,)]


async def test_a_source_that_fails_has_not_said_that_its_backends_are_gone() -> None:
    script = Script([A, B], SourceFailed("down"), ValueError("surprise"))
    made, reports = discovery(script)

    await made.start()
    await until(lambda: script.looks >= 6)
    await made.close()

    assert reports == [("default", (A, B))]


async def test_a_source_that_names_nobody_is_believed() -> None:
    made, reports = discovery(Script([A], []))

    await made.start()
    await until(lambda: len(reports) == 2)
    await made.close()

    assert reports[1] == ("default", ())


async def test_a_failing_source_is_told_once_and_so_is_its_recovery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    script = Script(SourceFailed("x"), SourceFailed("x"), SourceFailed("x"), [A])
    made, reports = discovery(script)

    await made.start()
    await until(lambda: bool(reports))
    await made.close()

    assert [record.message for record in caplog.records] == ["discovery failed", "discovery answers again"]


async def test_a_slow_source_does_not_keep_the_others_from_serving() -> None:
    answers = asyncio.Event()

    class Slow(Script):
        async def find(self) -> Sequence[Found]:
            await answers.wait()
            return await super().find()

    made, reports = discovery(Script([A]), Slow([B]), interval=60)

    await made.start(within=0.01)
    assert reports == [("default", (A,))]
    answers.set()
    await until(lambda: len(reports) == 2)
    await made.close()

    assert reports[1] == ("default", (A, B))


async def test_close_ends_a_first_look_that_still_runs() -> None:
    class Silent(Script):
        async def find(self) -> Sequence[Found]:
            await asyncio.Event().wait()
            return ()

    before = asyncio.all_tasks()
    made, _ = discovery(Silent([]))
    await made.start(within=0.01)

    await made.close()

    assert asyncio.all_tasks() == before


async def test_nothing_to_ask_is_no_trouble() -> None:
    made, reports = discovery()

    await made.start()
    await made.close()

    assert reports == []


async def test_backends_that_cannot_be_taken_over_do_not_end_the_looks() -> None:
    script, offered = Script([A], [B], [C]), []

    def refuse(pool: str, found: tuple[Found, ...]) -> None:
        offered.append(found)
        raise ValueError("no")

    made = Discovery(
        [Watched("s", script, "default", 0.005)], takes_first=False, changed=refuse, chance=lambda: 0.0
    )
    await made.start()
    await until(lambda: len(offered) == 3)
    await made.close()

    assert offered == [(A,), (B,), (C,)]


async def test_close_ends_all_looks_and_closes_the_sources() -> None:
    before = asyncio.all_tasks()
    script = Script([A])
    made, _ = discovery(script)
    await made.start()

    await made.close()

    assert script.is_closed
    assert asyncio.all_tasks() == before


async def test_pools_do_not_mix() -> None:
    reports: Reports = []
    made = Discovery(
        [Watched("one", Script([A]), "big", 60), Watched("two", Script([B]), "small", 60)],
        takes_first=False,
        changed=lambda pool, found: reports.append((pool, found)),
        chance=lambda: 0.0,
    )

    await made.start()
    await made.close()

    assert reports == [("big", (A,)), ("small", (B,))]


def test_joined_knows_an_address_however_it_is_written() -> None:
    assert joined([[Found("http://a:80")], [Found("http://a/"), Found("http://a")]]) == (
        Found("http://a:80"),
    )


def test_names_are_unique() -> None:
    named = with_names(
        [
            Found("http://a:1", "x"),
            Found("http://b:1", "x"),
            Found("http://c:1", "own"),
            Found("http://d:1/v"),
        ],
        {"own"},
    )

    assert [name for name, _ in named] == ["x", "b:1", "c:1", "d:1/v"]


POOL = schema.Pool(
    backends=(schema.Backend(url="http://own:1", name="own", weight=2),),
    timeouts=schema.Timeouts(connect=1.5),
)


def test_a_pool_keeps_its_own_backends_and_gains_the_others() -> None:
    found = [
        Found("http://own:1/", weight=9),
        Found("https://b", "b", 3, "sk", {"x": "1"}, 8, "vllm.example"),
    ]

    own, new = backends_of(found, POOL, takes_first=False)

    assert own == POOL.backends[0]
    assert new == schema.Backend(
        url="https://b",
        name="b",
        weight=3,
        api_key="sk",
        headers={"x": "1"},
        max_in_flight=8,
        tls=schema.UpstreamTls(server_name="vllm.example"),
        timeouts=POOL.timeouts,
    )


def test_taking_the_first_leaves_a_pools_own_for_when_nobody_is_found() -> None:
    assert [b.name for b in backends_of([A], POOL, takes_first=True)] == ["a:1"]
    assert backends_of([], POOL, takes_first=True) == POOL.backends


def test_a_template_says_what_sources_do_not() -> None:
    template = schema.Backend(url="", api_key="sk-all", headers={"a": "1", "b": "1"}, max_in_flight=4)

    (made,) = backends_of(
        [Found("http://a:1", headers={"b": "2"})], schema.Pool(), takes_first=False, template=template
    )

    assert (made.api_key, made.headers, made.max_in_flight) == ("sk-all", {"a": "1", "b": "2"}, 4)


SOURCES = [
    {
        "type": "static",
        "name": "s",
        "backends": [{"url": "http://a:1", "name": "a", "remove_headers": ["x"]}],
    },
    {"type": "dns", "name": "d", "host": "vllm.example"},
    {"type": "http", "name": "h", "url": "http://127.0.0.1:1/"},
    {"type": "consul", "name": "c", "service": "vllm"},
    {"type": "kubernetes", "name": "k", "service": "vllm"},
    {"type": "etcd", "name": "e", "endpoints": ["http://127.0.0.1:1"]},
    {"type": "database", "name": "db"},
]


async def test_every_section_of_the_configuration_makes_its_source() -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    settings = msgspec.convert(
        {"sources": [*SOURCES, {"type": "dns", "name": "off", "host": "x", "enabled": False}]},
        schema.Discovery,
    )
    fetcher, asked = Fetcher(), []

    def engine(name: str):
        asked.append(name)
        return create_async_engine("sqlite+aiosqlite://")

    made = make_discovery(settings, fetcher, engine=engine, changed=lambda *_: None, chance=lambda: 0.0)

    assert [watched.name for watched in made._sources] == ["s", "d", "h", "c", "k", "e", "db"]
    assert {watched.interval for watched in made._sources} == {30.0}
    assert asked == ["default"]
    (static,) = await made._sources[0].source.find()
    assert backends_of([static], schema.Pool(), takes_first=False)[0].remove_headers == ("x",)
    await made.close()
    await fetcher.close()
