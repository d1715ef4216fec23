"""The access log: lines arrive in order, and an output that hangs holds nobody up."""

import asyncio
import os
import threading
from select import PIPE_BUF

from hypothesis import given
from hypothesis import strategies as st
from kit.eventually import eventually

from proxy.sinks import access_log
from proxy.sinks.access_log import AccessLog, in_pieces


async def test_lines_are_written_in_order_and_the_last_ones_at_the_end(tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog(path.open("ab"), asyncio.get_running_loop(), owns=True)

    for number in range(100):
        log.put(b"%d\n" % number)
    await log.close(5.0)

    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(100))


async def test_lines_appear_without_the_end(tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog(path.open("ab"), asyncio.get_running_loop(), owns=True)

    log.put(b"a line\n")

    await eventually(lambda: path.read_bytes() == b"a line\n", "the line in the file")
    await log.close(5.0)


async def test_an_output_nobody_reads_costs_lines_not_time():
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    output = os.fdopen(writer, "wb", buffering=0)
    log = AccessLog(output, loop)
    line = b"x" * 1023 + b"\n"

    for _ in range(access_log.MAX_WAITING_BYTES // len(line) + 100):
        log.put(line)
    began = loop.time()
    await log.close(0.2)

    assert loop.time() - began < 2.0
    assert 90 <= log.dropped <= 100
    os.close(reader)  # the write ends with a broken pipe
    await eventually(lambda: not any("access-log" in t.name for t in threading.enumerate()), "the end")
    output.close()


async def test_an_output_that_fails_is_said_and_the_log_goes_on(caplog):
    reader, writer = os.pipe()
    os.close(reader)
    log = AccessLog(os.fdopen(writer, "wb", buffering=0), asyncio.get_running_loop(), owns=True)

    log.put(b"lost\n")
    await log.close(5.0)

    assert "access lines could not be written" in caplog.text


@given(st.lists(st.integers(0, 3 * PIPE_BUF), max_size=20))
def test_pieces_are_whole_lines_that_a_pipe_takes_at_once(lengths):
    data = b"".join(b"x" * length + b"\n" for length in lengths)

    pieces = list(in_pieces(data))

    assert b"".join(pieces) == data
    for piece in pieces:
        assert piece.endswith(b"\n") or not piece
        assert len(piece) <= PIPE_BUF or piece.count(b"\n") == 1
