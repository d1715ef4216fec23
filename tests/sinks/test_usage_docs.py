"""What docs/usage.md says is so."""

import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from proxy.config.load import parse
from proxy.sinks.kinds import KINDS
from proxy.sinks.sqlite import SqliteTable
from proxy.sinks.webhook import signature
from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage

TEXT = (Path(__file__).parents[2] / "docs" / "usage.md").read_text()
BODY = b'{"id":"r-1"}'


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture
def is_genuine():
    names: dict = {}
    exec(block("python"), names)
    return names["is_genuine"]


def test_the_documented_check_knows_our_signature_from_others(is_genuine):
    now = int(time.time())
    ours = signature(b"secret", now, BODY)

    assert is_genuine(b"secret", ours, BODY)
    assert not is_genuine(b"other", ours, BODY)
    assert not is_genuine(b"secret", ours, BODY + b" ")
    assert not is_genuine(b"secret", ours.replace(f"t={now}", f"t={now - 1}"), BODY)
    assert not is_genuine(b"secret", signature(b"secret", now - 301, BODY), BODY)
    for rubbish in ("", "t=,v1=", f"t={now}", "v1=x", f"t={now},v1=é", "t,v1", f"t=²,v1={ours}"):
        assert not is_genuine(b"secret", rubbish, BODY)


def test_the_example_record_has_the_fields_that_records_have():
    example = block("json")
    record = UsageRecord.from_json(example.encode())

    assert list(orjson.loads(record.to_json())) == list(orjson.loads(example))
    assert orjson.loads(record.to_json()) == orjson.loads(example)


def test_every_field_is_explained():
    record = UsageRecord.from_json(block("json").encode())
    table = TEXT[TEXT.index("| field |") : TEXT.index("There is no key")]
    explained = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    )

    flat = set(orjson.loads(record.to_json("flat")))
    assert explained == (flat - {"is_stream", "endpoint"}) | {"stream", "path", "usage"}


def test_the_example_configuration_is_one():
    text = 'backends: [{name: a, url: "http://127.0.0.1:1"}]\n' + block("yaml")

    config = parse(text, {}, read_file=lambda path: "secret")

    assert {type(reporter).__struct_config__.tag for reporter in config.usage.reporters} <= set(KINDS)
    assert config.usage.spool.max_age == 7 * 86400


async def test_the_example_query_works(tmp_path):
    record = UsageRecord(
        id="1", request_id="r", timestamp=datetime(2026, 1, 2, 3, 4, 5, 0, UTC), model="m", path="/",
        method="POST", backend="b", pool="p", status_code=200, outcome="complete", latency_ms=100,
        key_name="alice", usage=Usage(7, 3, 10),
    )  # fmt: skip
    sink = SqliteTable("table", path=tmp_path / "u.db")
    await sink.deliver([record.to_json()])
    await sink.close()

    with closing(sqlite3.connect(tmp_path / "u.db")) as db:
        assert db.execute(block("sql")).fetchall() == [("alice", "m", 7, 3)]
