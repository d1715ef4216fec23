"""What somebody sees in the first minute: the demo, the sidecar, the command line."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from kit.client import ask
from kit.gateway import ROOT, Gateway, free_port
from kit.upstream import replies
from kit.wire import answer, get, post


def run(*arguments):
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def started(tmp_path):
    """Starts the gateway with these arguments and ends it after the test."""
    running = []

    def start(*arguments):
        gateway = Gateway(tmp_path / "first", {}, arguments=arguments)
        gateway.command += ["--listen", f"127.0.0.1:{gateway.port}"]
        running.append(gateway)
        return gateway.start()

    yield start
    for gateway in running:
        assert gateway.stop() == 0
        assert gateway.new_alarms() == []


def test_the_demo_prints_a_command_that_works_when_pasted(started):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    gateway = started("run", "--demo")

    printed = gateway.output.replace("\\\n", " ")
    command = re.search(r"(curl .*)$", printed, re.MULTILINE)
    assert command, printed
    done = subprocess.run(shlex.split(command[1]), capture_output=True, text=True, timeout=20)

    assert done.returncode == 0, done.stderr
    assert "choices" in done.stdout


@pytest.mark.parametrize("mark", ["nasty", "utf8", "count 50", "think", "xml"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_demo_engine_says_comes_through(started, mark, stream):
    gateway = started("run", "--demo")
    body = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": f"[[{mark}]]"}]}

    response = await ask(gateway.port, post(body=json.dumps(body).encode()))

    assert (response.status, response.is_complete) == (200, True)
    assert response.body.endswith(b"data: [DONE]\n\n") if stream else json.loads(response.body)["choices"]


async def test_a_sidecar_needs_no_file(started, upstream, backend_port):
    upstream.on_request = replies(answer(b"served"))
    gateway = started("run", "--upstream", f"http://127.0.0.1:{backend_port}")

    response = await ask(gateway.port, get())

    assert response.body == b"served"


def test_the_command_line_answers():
    version, schema, nothing = run("--version"), run("schema"), run()

    assert re.search(r"\d+\.\d+", version.stdout)
    assert json.loads(schema.stdout)["$defs"]
    assert nothing.returncode != 0
    assert "usage" in nothing.stderr


def test_check_tells_good_files_from_bad_ones(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"backends:\n  - url: http://127.0.0.1:{free_port()}\n")
    bad.write_text("backends:\n  - ulr: http://127.0.0.1:1\nlog: {level: 7}\n")

    said = run("check", str(bad))

    assert run("check", str(good)).returncode == 0
    assert said.returncode == 2
    assert "ulr" in said.stderr + said.stdout
    assert "level" in said.stderr + said.stdout
    assert "url" in said.stderr + said.stdout
