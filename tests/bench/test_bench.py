"""`llmproxy bench` from the command line."""

import asyncio
import os
import sys

import pytest
from kit.gateway import ROOT
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, sse_head

MODELS = b'{"object":"list","data":[{"id":"their-model","object":"model"}]}'


async def bench(*arguments, **environ):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "bench", *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_it_measures_with_the_demo_engine_and_leaves_nothing_behind(tmp_path):
    status, out, err = await bench("--seconds", "0.5", TMPDIR=str(tmp_path))

    assert status == 0, err
    assert "Traceback" not in err
    rows = {line[2:34].strip(): line[34:].split() for line in out.splitlines() if line.startswith("  ")}
    direct, through, added = (float(text.replace(",", "")) for text in rows["tokens/s"][:3])
    # 32 streams of a token in 20 ms each are 1600; a machine in trouble may do with a part of them.
    assert 100 < direct < 2000
    assert 100 < through < 2000
    assert added < 1000
    assert float(rows["gateway's CPU per request, µs"][0].replace(",", "")) > 10
    assert 0.1 < float(rows["gateway's CPU per 1000 tokens/s"][0]) < 100
    assert "upstream: the built-in demo engine" in out
    assert list(tmp_path.iterdir()) == []


async def test_it_measures_a_server_of_ones_own():
    async def script(connection, request):
        if request.target == b"/v1/models":
            connection.write(answer(MODELS))
        elif b'"stream":true' in request.body:
            connection.write(sse_head() + chunk(b"data: {}\n\n") + chunked(b"data: [DONE]\n\n"))
        else:
            connection.write(answer())

    async with ScriptedUpstream(script) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        status, out, err = await bench(
            "--upstream", url, "--seconds", "0.5", LLMPROXY_UPSTREAM_KEY="sk-theirs"
        )

        assert status == 0, err
        assert f"upstream: {url}, model their-model" in out
        assert "sk-theirs" not in out + err
        asked = [request for request in upstream.requests if request.method == b"POST"]
        assert {request.head.get(b"authorization") for request in asked} == {b"Bearer sk-theirs"}
        assert all(b'"model":"their-model"' in request.body for request in asked)


async def test_a_server_that_refuses_is_said_plainly():
    async with ScriptedUpstream(replies(answer(status=b"404 Not Found"))) as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        no_list = await bench("--upstream", url, "--seconds", "0.5")
        no_model = await bench("--upstream", url, "--model", "x", "--seconds", "0.5")

    assert (no_list[0], no_model[0]) == (1, 1)
    assert "--model" in no_list[2]
    assert "answered 404" in no_model[2]
    assert "Traceback" not in no_list[2] + no_model[2]


@pytest.mark.parametrize(
    "arguments", [("--seconds", "0"), ("--seconds", "soon"), ("--upstream", "127.0.0.1:1")]
)
async def test_nonsense_is_refused(arguments):
    status, _, err = await bench(*arguments)

    assert status in (1, 2)
    assert "Traceback" not in err
