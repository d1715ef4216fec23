"""DNS asked for real: a server of our own on UDP and TCP."""

import pytest
from kit.names import NameServer, name_server, srv

from proxy.upstream.discovery.base import Found, SourceFailed
from proxy.upstream.discovery.dns import DnsSource, of_services
from proxy.upstream.discovery.dns_client import NoRecords, Resolver, ask_srv, read_resolver
from proxy.upstream.discovery.dns_message import Service


def source(server: NameServer, host: str = "_http._tcp.vllm.example", within: float = 5.0) -> DnsSource:
    resolver = Resolver((("127.0.0.1", server.port),))
    return DnsSource(host, port=1, scheme="https", within=within, resolver=lambda: resolver)


async def test_srv_records_become_backends_of_the_best_priority() -> None:
    records = srv((10, 60, 8000, "a.example"), (10, 0, 8001, "b.example"), (20, 60, 8002, "spare.example"))
    async with name_server(lambda name: records) as server:
        found = await source(server).find()

    assert found == [
        Found("https://a.example:8000", weight=60),
        Found("https://b.example:8001", weight=1),
    ]


async def test_a_target_that_is_no_host_is_a_failure() -> None:
    async with name_server(lambda name: srv((0, 1, 8000, "user@host.example"))) as server:
        with pytest.raises(SourceFailed):
            await source(server).find()


async def test_changes_are_seen_with_the_next_look() -> None:
    answers = [srv((0, 1, 1, "a.example")), srv((0, 1, 2, "a.example"))]
    async with name_server(lambda name: answers.pop(0)) as server:
        asked = source(server)

        assert [one.url for one in await asked.find()] == ["https://a.example:1"]
        assert [one.url for one in await asked.find()] == ["https://a.example:2"]


async def test_an_answer_that_does_not_fit_is_fetched_over_tcp() -> None:
    many = srv(*((0, 1, port, f"server-{port}.example") for port in range(1, 200)))
    async with name_server(lambda name: srv(is_cut=True), lambda name: many) as server:
        found = await source(server).find()

    assert len(found) == 199
    assert [by.split()[0] for by in server.asked] == ["udp", "tcp"]


async def test_a_silent_server_is_passed_over_for_the_next() -> None:
    records = srv((0, 1, 1, "a.example"))
    async with name_server(lambda name: None) as silent, name_server(lambda name: records) as server:
        resolver = Resolver((("127.0.0.1", silent.port), ("127.0.0.1", server.port)))

        reply = await ask_srv(resolver, "_x._tcp.example", within=0.8)

    assert reply.services == (Service(0, 1, 1, "a.example"),)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (srv(code=3), "no such name"),
        (srv(), "no SRV records"),
        (srv(code=2), "the name server says 2"),
        (None, "no name server answers"),
    ],
)
async def test_without_records_it_says_why(answer: bytes | None, why: str) -> None:
    async with name_server(lambda name: answer) as server:
        with pytest.raises(SourceFailed, match=why):
            await source(server, within=0.4).find()


async def test_a_server_that_is_not_there_fails_at_once() -> None:
    async with name_server(lambda name: None) as server:
        pass

    with pytest.raises(NoRecords):
        await ask_srv(Resolver((("127.0.0.1", server.port),)), "_x._tcp.example", within=60.0)


async def test_the_target_dot_says_that_there_is_no_such_service() -> None:
    assert of_services([Service(0, 0, 0, "")], "http") == []


async def test_names_are_searched_as_the_resolver_says() -> None:
    records = srv((0, 1, 1, "a.example"))
    found_at = "_x._tcp.vllm.default.svc.cluster.local"
    async with name_server(lambda name: records if name == found_at else srv(code=3)) as server:
        resolver = Resolver(
            (("127.0.0.1", server.port),), ("svc.cluster.local", "default.svc.cluster.local"), ndots=5
        )

        await ask_srv(resolver, "_x._tcp.vllm", within=5.0)

    assert server.asked == ["udp _x._tcp.vllm.svc.cluster.local", f"udp {found_at}"]


@pytest.mark.parametrize(
    ("name", "ndots", "names"),
    [
        ("a.b.", 5, ("a.b",)),
        ("a.b", 1, ("a.b", "a.b.one", "a.b.two")),
        ("a", 1, ("a.one", "a.two", "a")),
        ("a.b", 5, ("a.b.one", "a.b.two", "a.b")),
    ],
)
def test_the_order_of_names_is_that_of_the_c_library(name: str, ndots: int, names: tuple[str, ...]) -> None:
    assert Resolver(search=("one", "two"), ndots=ndots).names(name) == names


def test_reads_resolv_conf() -> None:
    text = (
        "# made by a machine\ndomain ignored.example\nnameserver 10.0.0.10\nnameserver fe80::1 ; comment\n"
        "search default.svc.cluster.local. svc.cluster.local\noptions timeout:1 ndots:5 rotate\n"
        "nameserver 1.1.1.1\nnameserver 9.9.9.9\nnonsense\noptions ndots:many\n"
    )

    assert read_resolver(text) == Resolver(
        (("10.0.0.10", 53), ("fe80::1", 53), ("1.1.1.1", 53)),
        ("default.svc.cluster.local", "svc.cluster.local"),
        5,
    )
    assert read_resolver("") == Resolver()


async def test_a_name_stands_for_all_its_addresses() -> None:
    found = await DnsSource("localhost", port=8000, scheme="http", within=5.0).find()

    assert Found("http://127.0.0.1:8000", server_name="localhost") in found
    assert len({one.url for one in found}) == len(found)


async def test_an_unknown_name_is_a_failure_and_not_an_empty_pool() -> None:
    with pytest.raises(SourceFailed):
        await DnsSource("nowhere.invalid", port=1, scheme="http", within=5.0).find()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "_" + "a" * 64 + "._tcp.example"])
async def test_what_is_no_name_is_a_failure(host: str) -> None:
    with pytest.raises(SourceFailed):
        await DnsSource(host, port=1, scheme="http", within=5.0).find()
