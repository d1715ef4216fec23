"""docs/adapters.md shows what the formats really are."""

import json
import re
from pathlib import Path

import orjson
import pytest
from kit.chat import TOOLS, adapters, request, whole

from proxy.adapters.reasoning_families import KINDS as FAMILIES
from proxy.adapters.tool_calls.format import Body
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls
from proxy.config import parse

TEXT = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text("utf-8")
TRIGGER = "<Function_AB1c_Start/>"
ARGUMENTS = {"path": "a.txt", "content": '1 < 2\n"ok"', "times": 2}
FORMATS = [name for name, format in KINDS.items() if format.body is not Body.NONE]


def section(name):
    """What the document says about a format: its words, and its example."""
    found = re.search(rf"^### `{name}`\n(.*?)\n\n(```+)text\n(.*?)\n\2$", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, (
        f"docs/adapters.md needs a section: ### `{name}`, its models, and\n{example(name)}"
    )
    return found[1], found[3]


def example(name):
    markup = render_calls(KINDS[name], [Call("call_1", "write", ARGUMENTS)])
    return f"{TRIGGER}\n{markup}" if KINDS[name].trigger else markup


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_is_what_the_model_writes(name):
    words, shown = section(name)

    assert shown == example(name)
    assert ("special tokens" in words) is KINDS[name].special_tokens
    if KINDS[name].reasoning:
        assert f"thinking: `{KINDS[name].reasoning}`" in words


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_is_read_as_the_call(name):
    trigger = TRIGGER if KINDS[name].trigger else None
    plan = adapters(name, trigger=trigger).plan(request(tools=TOOLS))

    (choice,) = orjson.loads(plan.answer_json(whole(section(name)[1])))["choices"]

    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "write"
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert choice["message"]["content"] is None


def test_every_family_is_in_the_table():
    for name, family in FAMILIES.items():
        cells = [
            " ".join(f"`{tag}`" for tag in tags).replace("|", "\\|") for tags in (family.open, family.close)
        ]
        start = "inside the thinking" if family.starts_inside else "in the answer"
        assert f"| `{name}` | {cells[0]} | {cells[1]} | {start} |" in TEXT


def test_the_configuration_it_shows_loads():
    (models,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)

    config = parse(f"backends: [{{name: a, url: 'http://127.0.0.1:1'}}]\n{models}", {}, read_file=open)

    assert len(config.models[0].adapters) == 3
