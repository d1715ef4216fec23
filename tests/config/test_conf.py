"""The files in conf/ and what is made from the schema: current, and usable as they stand."""

import json
import re
from pathlib import Path

import pytest

from proxy.config import json_schema, parse, parse_keys, reference

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = sorted(path for path in (ROOT / "conf").glob("*.yaml") if path.name != "keys.example.yaml")


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_every_configuration_loads_without_any_environment(path):
    config = parse(path.read_text(encoding="utf-8"), {}, read_file=open, origin=str(path))

    assert config.pools
    assert [note for note in config.notes if "not in this version" not in note] == []


def test_there_are_four_of_them():
    names = [path.name for path in CONFIGURATIONS]

    assert names == ["cluster.yaml", "llmproxy.yaml", "opencode.yaml", "sidecar.yaml"]


def test_the_key_file_loads_and_holds_no_usable_key():
    text = (ROOT / "conf" / "keys.example.yaml").read_text(encoding="utf-8")

    keys, notes = parse_keys(text, {}, read_file=open)

    assert [key.name for key in keys] == ["alice", "ci", "trial"]
    assert all(key.key is None and key.sha256 for key in keys)
    assert notes == ()


def test_the_schema_file_is_current():
    written = (ROOT / "conf" / "llmproxy.schema.json").read_text(encoding="utf-8")

    assert json.loads(written) == json_schema(), "run `make docs`"


def test_the_reference_is_current():
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_every_link_of_the_reference_leads_to_a_heading():
    text = reference()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors
    assert len(headings) == len(set(headings))


def test_the_reference_shows_values_as_they_are_written():
    text = reference()

    assert "| `max_body_size` | size | `100MiB` |" in text
    assert "| `first_byte` | duration | `5m` |" in text
    assert "| `listen` ↻ | text | `127.0.0.1:8000` |" in text
    assert "| `weight` | 0…1000 | `1` |" in text
    assert "| `url` | text | *required* |" in text
    assert "`retry_on` | list of whole" not in text
