"""A time-out that counts only while the loop listens."""

import asyncio
import socket
import threading
import time

import pytest

from proxy.stores.patience import Patience

SHORT = 0.05


async def test_what_never_comes_is_given_up():
    with pytest.raises(TimeoutError):
        async with Patience(SHORT):
            await asyncio.Event().wait()


async def test_what_comes_in_time_comes():
    async with Patience(60.0):
        await asyncio.sleep(0)


async def test_an_error_inside_stays_what_it_is():
    with pytest.raises(LookupError):
        async with Patience(60.0):
            raise LookupError


async def test_a_cancelled_wait_is_no_time_out():
    async def wait():
        async with Patience(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_that_came_while_the_loop_was_busy_is_heard():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    has_answered = threading.Event()

    def answer():
        theirs.sendall(theirs.recv(10))
        has_answered.set()

    def be_busy():
        has_answered.wait()
        time.sleep(2 * SHORT)

    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(sock=ours)
    thread = threading.Thread(target=answer)
    thread.start()
    async with Patience(SHORT):
        writer.write(b"x")
        loop.call_soon(be_busy)
        assert await reader.readexactly(1) == b"x"

    thread.join()
    writer.close()
    await writer.wait_closed()
    theirs.close()
