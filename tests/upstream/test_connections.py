"""The byte path's upstream side against a server that does what each test says."""

import asyncio
from dataclasses import dataclass, field

import pytest
from kit.eventually import eventually
from kit.upstream import ScriptedUpstream

from proxy.upstream.ask import converse
from proxy.upstream.connection import Failure, Timeouts, UpstreamConnection
from proxy.upstream.connections import CAREFUL_SECONDS, Connections, Habit
from proxy.upstream.watch import Watch
from proxy.wire.http1 import AnswerHead

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: up\r\nContent-Length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


@dataclass
class Answer:
    """A Receiver that keeps what it is told."""

    connection: UpstreamConnection
    interim: list[int] = field(default_factory=list)
    status: int = 0
    raw: bytes = b""
    body: bytes = b""
    silences: int = 0

    def __post_init__(self) -> None:
        self.done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

    def interim_answer(self, head: AnswerHead) -> None:
        self.interim.append(head.status)

    def answer_began(self, head: AnswerHead, more: bool) -> None:
        self.status = head.status

    def answer_piece(self, raw: bytes, payload: bytes) -> None:
        self.raw += raw
        self.body += payload

    def answer_ended(self) -> None:
        self.done.set_result(None)

    def answer_failed(self, failure: Failure) -> None:
        self.done.set_result(failure)

    def still_silent(self) -> None:
        self.silences += 1


class Home:
    """One endpoint's connections and a way to use them."""

    def __init__(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.watch = Watch(loop)
        self.connections = Connections("127.0.0.1", port, watch=self.watch, loop=loop)

    async def ask(
        self, timeouts: Timeouts | None = None, body: bytes = b"ok"
    ) -> tuple[Answer, Failure | None]:
        connections = self.connections
        connection = connections.take() or await connections.proven() or await connections.connect(2.0)
        answer = Answer(connection)
        head = HEAD.replace(b"Length: 2", b"Length: %d" % len(body))
        connection.begin(head, body, answer, method=b"POST", timeouts=timeouts or Timeouts())
        return answer, await asyncio.wait_for(answer.done, 10)

    def close(self) -> None:
        self.connections.close()
        self.watch.close()


@pytest.fixture
def homes():
    made = []

    def make(port):
        made.append(Home(port))
        return made[-1]

    yield make
    for home in made:
        home.close()


def writes(*pieces, then="keep"):
    async def script(connection, request):
        for piece in pieces:
            connection.write(piece)
            await asyncio.sleep(0)
        if then == "fin":
            connection.close()
        elif then == "rst":
            connection.reset()
        elif then == "stall":
            await connection.stall()

    return script


async def test_a_connection_is_used_again(homes):
    async with ScriptedUpstream(writes(OK)) as upstream:
        home = homes(upstream.port)

        for _ in range(3):
            answer, failure = await home.ask()
            assert (answer.status, answer.body, failure) == (200, b"hi", None)

        assert len(upstream.connections) == 1


async def test_an_answer_cut_at_any_byte_is_a_failure(homes):
    for whole in (OK, CHUNKED):
        for cut in range(len(whole)):
            for then in ("fin", "rst"):
                async with ScriptedUpstream(writes(whole[:cut], then=then)) as upstream:
                    _, failure = await homes(upstream.port).ask()

                    assert failure in (Failure.NO_ANSWER, Failure.BAD_HEAD, Failure.CUT)


async def test_the_framing_goes_through_as_it_came(homes):
    async with ScriptedUpstream(writes(CHUNKED[:-3], CHUNKED[-3:])) as upstream:
        answer, failure = await homes(upstream.port).ask()

    assert (answer.raw, answer.body, failure) == (b"2\r\nhi\r\n0\r\n\r\n", b"hi", None)


async def test_an_answer_without_an_end_ends_with_the_connection(homes):
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    async with ScriptedUpstream(writes(head + b"all", then="fin")) as upstream:
        answer, failure = await homes(upstream.port).ask()
        assert (answer.body, failure) == (b"all", None)
    async with ScriptedUpstream(writes(head + b"all", then="rst")) as upstream:
        _, failure = await homes(upstream.port).ask()
        assert failure is Failure.CUT


async def test_extra_bytes_end_the_connection_and_poison_nobody(homes):
    async with ScriptedUpstream(writes(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")) as upstream:
        home = homes(upstream.port)
        for _ in range(2):
            answer, failure = await home.ask()
            assert (answer.body, failure) == (b"hi", None)

        assert len(upstream.connections) == 2


async def test_a_server_that_closed_unseen_costs_no_request(homes):
    """The FIN is there but unread, or arrives with the request: neither loses it, and none runs twice."""
    async with ScriptedUpstream(writes(OK, then="fin")) as upstream:
        home = homes(upstream.port)
        for _ in range(50):
            answer, failure = await home.ask()
            while failure is Failure.UNSENT:
                answer, failure = await home.ask()
            assert (answer.body, failure) == (b"hi", None)

        assert len(upstream.requests) == 50


async def test_what_arrived_and_was_dropped_is_told_apart_from_what_never_arrived(homes):
    async def read_then_reset(connection, request):
        connection.reset()

    async with ScriptedUpstream(read_then_reset) as upstream:
        _, failure = await homes(upstream.port).ask()

    assert failure is Failure.NO_ANSWER


async def test_an_early_answer_survives_the_reset_behind_it(homes):
    async def refuse(connection):
        await connection.read_head()
        connection.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        connection.reset()

    async with ScriptedUpstream(on_connection=refuse) as upstream:
        answer, failure = await homes(upstream.port).ask(body=b"x" * 8_000_000)

    assert (answer.status, answer.body, failure) == (413, b"big", None)


async def test_a_silence_is_told_while_no_body_byte_has_come(homes):
    async with ScriptedUpstream(writes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", then="stall")) as up:
        home = homes(up.port)
        home.connections.patience = 0.2
        silence = asyncio.create_task(home.connections.silence())

        answer, _ = await home.ask(Timeouts(first_byte=2.0))

        assert answer.silences > 0
        await silence


async def test_it_is_no_silence_while_another_hears_something(homes):
    connections = homes(1).connections
    connections.patience, connections.heard = 2.0, 10.0
    silence = asyncio.create_task(connections.silence())
    await asyncio.sleep(0)

    connections.was_silent(10.0, 11.9)
    await asyncio.sleep(0)
    assert not silence.done()

    connections.was_silent(10.0, 12.1)
    await silence


async def test_a_server_that_was_heard_since_is_given_more_time(homes):
    connections = homes(1).connections
    connections.patience, connections.heard = 2.0, 10.0
    silence = asyncio.create_task(connections.silence())
    await asyncio.sleep(0)

    connections.was_silent(9.0, 17.9)
    await asyncio.sleep(0)
    assert not silence.done()

    connections.was_silent(9.0, 18.1)
    await silence


async def test_the_first_byte_the_idle_and_the_total_time_have_limits(homes):
    head = CHUNKED[: CHUNKED.index(b"2\r\nhi")]
    cases = [
        ([], Timeouts(first_byte=0.2), Failure.FIRST_BYTE_TIMEOUT),
        ([head], Timeouts(first_byte=0.2), Failure.FIRST_BYTE_TIMEOUT),
        ([head + b"2\r\nhi\r\n"], Timeouts(idle=0.2), Failure.IDLE_TIMEOUT),
        ([head + b"2\r\nhi\r\n"], Timeouts(total=0.2), Failure.TOTAL_TIMEOUT),
    ]
    for pieces, timeouts, expected in cases:
        async with ScriptedUpstream(writes(*pieces, then="stall")) as upstream:
            _, failure = await homes(upstream.port).ask(timeouts)

            assert failure is expected


async def test_informational_answers_come_before_the_final_one(homes):
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with ScriptedUpstream(writes(interim[:30], interim[30:] + OK)) as upstream:
        answer, failure = await homes(upstream.port).ask()

    assert (answer.interim, answer.status, failure) == ([103], 200, None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000,
    ],
)
async def test_what_is_no_answer_fails_at_once(homes, garbage):
    async with ScriptedUpstream(writes(garbage, then="stall")) as upstream:
        _, failure = await homes(upstream.port).ask()

        assert failure is Failure.BAD_HEAD


async def test_a_stream_may_be_followed_by_a_silent_close(homes):
    """llama-server announces keep-alive, then closes after every stream: no request may meet that."""
    async with ScriptedUpstream(writes(CHUNKED, then="fin")) as upstream:
        home = homes(upstream.port)
        for _ in range(30):
            _, failure = await home.ask()
            assert failure is None

        assert len(upstream.requests) == 30


async def test_a_server_that_keeps_its_connections_after_streams_gets_them_reused(homes):
    async with ScriptedUpstream(writes(CHUNKED)) as upstream:
        home = homes(upstream.port)
        await home.ask()
        await eventually(lambda: home.connections.idle > 0, "the connection is idle")
        for _ in range(5):
            await home.ask()

        assert len(upstream.connections) == 1


async def test_a_server_that_began_to_close_gets_a_new_connection_each_time(homes):
    async with ScriptedUpstream(writes(OK)) as upstream:
        home = homes(upstream.port)
        await home.ask()
        await home.ask()
        assert len(upstream.connections) == 1

        upstream.on_request = writes(OK, then="fin")
        for _ in range(30):
            await home.ask()  # the first ones may meet the end
            await eventually(lambda: home.connections.open == 0, "the server's end was seen")
        seen = len(upstream.requests)
        outcomes = [await home.ask() for _ in range(30)]

        assert {failure for _, failure in outcomes} == {None}
        assert len(upstream.requests) == seen + 30


def test_a_habit_is_trusted_once_a_connection_stayed():
    habit = Habit()
    assert not habit.is_trusted

    habit.kept(1.0)

    assert habit.is_trusted


def test_one_silent_close_makes_careful_for_a_while():
    habit = Habit()
    habit.kept(1.0)

    habit.closed(2.0)
    habit.kept(3.0)

    assert not habit.is_trusted
    assert not habit.always_closes(3.0)
    habit.kept(2.0 + CAREFUL_SECONDS)
    assert habit.is_trusted


def test_a_server_that_always_closes_is_known_until_it_may_have_changed():
    habit = Habit()
    for at in range(3):
        assert not habit.always_closes(at)
        habit.closed(at)

    assert habit.always_closes(2.0)
    assert not habit.always_closes(2.0 + CAREFUL_SECONDS)
    habit.kept(2.0 + CAREFUL_SECONDS)
    assert habit.is_trusted


async def test_idle_connections_are_dropped_before_the_server_would(homes):
    async with ScriptedUpstream(writes(OK)) as upstream:
        loop = asyncio.get_running_loop()
        home = homes(upstream.port)
        home.connections = Connections("127.0.0.1", upstream.port, watch=home.watch, loop=loop, keep_idle=0.2)
        await home.ask()

        ending = await upstream.connections[0].wait_end(3)

        assert ending in ("fin", "rst")
        assert (home.connections.open, home.connections.idle) == (0, 0)


# -- before the request is out ------------------------------------------------


@pytest.mark.parametrize("event", ["bytes", "end", "reset"])
async def test_what_comes_before_the_request_is_out_is_no_answer_to_it(homes, event):
    async with ScriptedUpstream(writes(OK)) as upstream:
        home = homes(upstream.port)
        await home.ask()
        connection = await home.connections.proven()
        assert connection is not None
        answer = Answer(connection)

        connection.begin(HEAD, b"ok", answer, method=b"POST", timeouts=Timeouts())
        if event == "bytes":
            connection.data_received(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        elif event == "end":
            connection.eof_received()
        else:
            connection.connection_lost(ConnectionResetError())

        assert await answer.done is Failure.UNSENT
        await home.ask()
        assert len(upstream.requests) == 2
        assert answer.status == 0


async def test_a_question_that_is_over_leaves_its_connection_to_others(homes):
    """Whoever takes it in the turn in which the answer ends is not cut off by the one who asked."""
    async with ScriptedUpstream(writes(OK)) as upstream:
        home = homes(upstream.port)
        await home.ask()
        await eventually(lambda: home.connections.idle == 1, "the server is trusted")
        first = home.connections.take()
        loop, taken = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def take_at_once() -> None:
            connection = home.connections.take()
            if connection is None:
                loop.call_soon(take_at_once)
            else:
                taken.set_result(Answer(connection))
                connection.begin(HEAD, b"ok", taken.result(), method=b"POST", timeouts=Timeouts())

        take_at_once()
        answer = await converse(home.connections, HEAD, b"ok", method="POST", within=5.0)

        assert answer.body == b"hi"
        assert await asyncio.wait_for((await taken).done, 10) is None
        assert (await taken).body == b"hi"
        assert len(upstream.connections) == 2
        first.abandon()
