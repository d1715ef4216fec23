"""Two attempts side by side: whoever is stopped is let go, also where it had not begun."""

import asyncio

from proxy.web.race import Race


class Runner:
    """An attempt that speaks when it is told to."""

    def __init__(self) -> None:
        self.has_run = self.is_outrun = False
        self.let_goes = 0
        self.wins = None
        self.told = asyncio.Event()

    async def run(self) -> None:
        self.has_run = True
        await self.told.wait()

    def let_go(self) -> None:
        self.let_goes += 1

    def speaks(self) -> None:
        assert self.wins(self)
        self.told.set()


async def test_a_second_one_that_is_outrun_before_it_ran_is_let_go():
    first, second = Runner(), Runner()

    def company(silent):
        asyncio.get_running_loop().call_soon(first.speaks)  # in front of the second one's first step
        return second

    winner = await Race(first).run(0.001, company)

    assert winner is first
    assert (second.has_run, second.is_outrun) == (False, True)
    assert (first.let_goes, second.let_goes) == (1, 1)
