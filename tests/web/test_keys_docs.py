"""What docs/keys.md shows is run: its configurations load, its curl commands succeed in their order."""

import json
import re
import shlex
from pathlib import Path
from secrets import token_bytes

import pytest
from aiohttp import ClientSession, web

from proxy.access import digest
from proxy.config import parse
from proxy.stores.key_calls import CALLS
from proxy.stores.key_database import KeyDatabase
from proxy.web.admin import AdminPages

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
TOKEN = "token-0123456789"
COMMANDS = re.findall(r"^curl .*$", PAGE, re.MULTILINE)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_configuration_on_the_page_loads(text):
    parse(text + "\nbackends: [{url: 'http://127.0.0.1:1'}]\n", {}, read_file=lambda name: "")


@pytest.mark.parametrize("text", blocks("python"))
def test_the_function_on_the_page_is_one(text):
    names = {}
    exec(compile(text, "docs/keys.md", "exec"), names)

    assert names["check"]("other") is None
    assert names["check"]("team-1")["allow"] is True


async def test_the_commands_on_the_page_succeed_one_after_the_other(tmp_path):
    database = KeyDatabase(tmp_path / "keys.db", lambda entry: None)
    token = digest(TOKEN.encode())
    pages = AdminPages(database, token, (), read_only=False, wall=lambda: 1.77e9, random=token_bytes)
    app = web.Application()
    app.add_routes(pages.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    admin = f"http://127.0.0.1:{runner.addresses[0][1]}/admin/keys"

    async with ClientSession() as session:
        for command in COMMANDS:
            words = shlex.split(command.replace("$ADMIN_TOKEN", TOKEN).replace("$ADMIN/", f"{admin}/"))
            url, (name, _, value) = words[1], words[words.index("-H") + 1].partition(": ")
            async with session.post(url, data=words[words.index("-d") + 1], headers={name: value}) as answer:
                assert answer.status == 200, (command, await answer.text())
                assert json.loads(await answer.read())["success"]

    assert {shlex.split(command)[1].rpartition("/")[2] for command in COMMANDS} == set(CALLS)
    await runner.cleanup()
    await database.close()
