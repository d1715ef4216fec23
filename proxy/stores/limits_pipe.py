"""Operations on their way to the limits in Redis, many per call.

One call is under way at a time; what comes meanwhile travels together in the
next one, so the cost per request falls as load rises. What nobody waits for
waits a moment for a question that takes it along. A call that fails or
takes too long marks the store as down: whoever waits is told at once, nobody
waits again until a probe has come through.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from proxy.stores.limits_script import RELEASE, SETTLE, Answer
from proxy.stores.patience import Patience

log = logging.getLogger(__name__)

# Requests, and what was given back, per call: Redis serves nobody else meanwhile, and
# one takes it about 10 us.
MAX_BATCH = 128
# Operations kept while Redis is away, so that slots are given back and usage is charged
# when it returns; the oldest go first, their leases lapse by themselves.
MAX_BACKLOG = 16_384
# Seconds for which what was given back waits to be taken along: a client that asks one
# request after the other then costs one call for each, not two.
LINGER = 0.005
# Seconds between probes while Redis is away: soon after a blip, once per second later.
FIRST_PROBE = 0.1
LONGEST_PROBE = 1.0
# Seconds for a probe, which nobody waits for and which may have to connect first.
PROBE_TIMEOUT = 1.0

Operation = list[Any]
Call = Callable[[list[Operation]], Awaitable[list[Answer]]]
Undo = Callable[[Answer | None], None]


class StoreDown(Exception):
    """Redis gave no answer in time."""


class _Question:
    """An operation that somebody waits for, and what undoes it where nobody hears the answer."""

    __slots__ = ("answer", "operation", "undo")

    def __init__(self, operation: Operation, answer: asyncio.Future[Answer], undo: Undo) -> None:
        self.operation = operation
        self.answer = answer
        self.undo = undo


class Pipe:
    """Feeds `call` with batches; belongs to whoever closes it."""

    def __init__(self, call: Call, timeout: float, linger: float = LINGER) -> None:
        self._call = call
        self._timeout = timeout
        self._linger = linger
        self._questions: deque[_Question] = deque()
        self._posts: deque[Operation] = deque()
        self._wake = asyncio.Event()
        self._departure: asyncio.TimerHandle | None = None
        self.came_back = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self.is_up = True
        self.outages = 0
        self.lost = 0

    async def start(self) -> None:
        """Connect, so that the first request pays for nothing; a store that is down does not hinder."""
        await self._probe()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Send what is left, once, and stop."""
        if self._task is None:
            return
        self._is_closing = True
        self._wake.set()
        if not self.is_up:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._disappoint(self._questions)
        self._questions.clear()
        while self._posts and self.is_up:
            await self._send()
        if self._departure is not None:
            self._departure.cancel()

    def post(self, operation: Operation) -> None:
        """Send it some time soon; nobody waits for it."""
        if len(self._posts) >= MAX_BACKLOG:
            self._posts.popleft()
            self.lost += 1
        self._posts.append(operation)
        self._plan()

    def _plan(self) -> None:
        """Send at once for somebody who waits or a full batch, else in a moment."""
        if self._questions or len(self._posts) >= MAX_BATCH:
            self._wake.set()
        elif self._posts and self._departure is None:
            self._departure = asyncio.get_running_loop().call_later(self._linger, self._depart)

    def _depart(self) -> None:
        self._departure = None
        if self._posts:
            self._wake.set()

    async def ask(self, operation: Operation, undo: Undo) -> Answer:
        """The script's answer, or StoreDown.

        `undo` hears the answer if the caller has left, and None if there is none
        and Redis may have carried the operation out all the same.
        """
        if not self.is_up or self._is_closing:
            raise StoreDown
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(operation, answer, undo))
        self._wake.set()
        return await answer

    async def _run(self) -> None:
        pause = FIRST_PROBE
        while not self._is_closing:
            if self.is_up:
                await self._wake.wait()
                self._wake.clear()
                await self._send()
                pause = FIRST_PROBE
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PROBE)
                await self._probe()
            self._plan()

    async def _probe(self) -> None:
        """Ask for nothing: what a failed call may have carried out cannot be sent again."""
        await self._exchange([], [], PROBE_TIMEOUT)

    async def _send(self) -> None:
        """One call with what has gathered: what was given back first, then who asks."""
        posts, questions = self._next_posts(), self._next_questions()
        if posts or questions:
            await self._exchange(posts, questions, self._timeout)

    async def _exchange(self, posts: list[Operation], questions: list[_Question], patience: float) -> None:
        try:
            async with Patience(patience):
                answers = await self._call(posts + [question.operation for question in questions])
        except asyncio.CancelledError:
            self._disappoint(questions)
            raise
        except Exception as exc:  # whatever went wrong, those who wait must hear it; `outages` counts
            self._fail(posts, questions, exc)
        else:
            self._deliver(questions, answers)

    def _next_posts(self) -> list[Operation]:
        return [self._posts.popleft() for _ in range(min(len(self._posts), MAX_BATCH))]

    def _next_questions(self) -> list[_Question]:
        questions: list[_Question] = []
        while self._questions and len(questions) < MAX_BATCH:
            question = self._questions.popleft()
            if not question.answer.cancelled():
                questions.append(question)
        return questions

    def _deliver(self, questions: list[_Question], answers: list[Answer]) -> None:
        if not self.is_up:
            self.is_up = True
            self.came_back.set()
            log.warning("limit store is back", extra={"outages": self.outages, "lost": self.lost})
        for question, answer in zip(questions, answers, strict=True):
            if question.answer.cancelled():
                question.undo(answer)
            else:
                question.answer.set_result(answer)

    def _fail(self, posts: list[Operation], questions: list[_Question], exc: Exception) -> None:
        if self.is_up:
            self.is_up = False
            self.outages += 1
            log.warning("limit store is down", extra={"error": type(exc).__name__})
        # Giving a slot back twice does no harm; charging twice would. Renewals come again.
        again = [operation for operation in posts if operation[0] == RELEASE]
        self.lost += sum(operation[0] == SETTLE for operation in posts)
        self._posts.extendleft(reversed(again))
        self._disappoint(questions)
        for question in questions:
            question.undo(None)
        self._disappoint(self._questions)
        self._questions.clear()

    def _disappoint(self, questions: Iterable[_Question]) -> None:
        for question in questions:
            if not question.answer.done():
                question.answer.set_exception(StoreDown())
