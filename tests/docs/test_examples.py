"""What the documents show works, and what they name exists."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.config import parse
from proxy.sinks.webhook import signature
from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")


def blocks(kind, *paths):
    """Every fenced block of a language, with where it stands."""
    found = []
    for path in paths or DOCUMENTS:
        texts = re.findall(rf"```{kind}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
        found += [pytest.param(text, id=f"{path.name}-{number}") for number, text in enumerate(texts)]
    return found


def test_the_readmes_configuration_loads():
    (example,) = (param.values[0] for param in blocks("yaml", ROOT / "README.md"))

    config = parse(example, {}, read_file=open)

    assert len(config.pools["default"].backends) == 2
    assert config.notes == ()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_shown_loads(text):
    has_backends = re.search(r"^(backends|pools):", text, re.MULTILINE)
    document = text if has_backends else 'backends: [{url: "http://127.0.0.1:8001"}]\n' + text
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "x")

    parse(document, variables, read_file=lambda path: "x")


@pytest.mark.parametrize("text", blocks("json"))
def test_every_json_example_is_json(text):
    json.loads(text)


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_example_is_python(text):
    compile(text, "example", "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8"))

    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert missing == []


def test_the_usage_record_is_shown_as_it_is_sent():
    (shown,) = (json.loads(param.values[0]) for param in blocks("json", ROOT / "docs" / "operate.md"))
    record = UsageRecord(
        id="i", request_id="r", timestamp=datetime.now(UTC), model="m", path="/", method="POST",
        backend="b", pool="p", status_code=200, outcome="complete", latency_ms=1000,
        usage=Usage(1, 2, 3, 4, 5),
    )  # fmt: skip
    sent = json.loads(record.to_json())

    assert list(shown) == list(sent)
    assert list(shown["usage"]) == list(sent["usage"])


def test_the_receivers_example_checks_our_signature():
    (example,) = (param.values[0] for param in blocks("python", ROOT / "docs" / "operate.md"))
    names = {}
    exec(example.replace("time.time()", "1000"), names)
    header = signature(b"secret", 990, b"body")

    assert names["is_genuine"](b"secret", header, b"body")
    assert not names["is_genuine"](b"secret", header, b"other body")
    assert not names["is_genuine"](b"other", header, b"body")
    assert not names["is_genuine"](b"secret", signature(b"secret", 10, b"body"), b"body")


def test_every_promise_names_tests_that_exist():
    promised = re.findall(r"\| (`(?:server/)?test_\w+\.py`.*?) \|$", OPERATE, re.MULTILINE)

    named = []
    for row in promised:
        file = None
        for folder, name in re.findall(r"`(server/)?(test_\w+(?:\.py)?)`", row):
            if name.endswith(".py"):
                file = (ROOT / "tests" / (folder or "probes") / name).read_text("utf-8")
            else:
                named.append((name, file))
    assert len(named) > 25
    assert [name for name, file in named if f"def {name}(" not in file] == []
