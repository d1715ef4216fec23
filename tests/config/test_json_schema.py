"""The schema for editors, judged by a validator small enough to be read."""

import re

import pytest

from proxy import balancers
from proxy.config import json_schema, parse
from proxy.config.document import Reader
from proxy.config.expand import Expander

SCHEMA = json_schema()
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
}


def fits(value, schema):
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    types = schema.get("type", [])
    if types and not any(has_type(value, name) for name in ([types] if isinstance(types, str) else types)):
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if isinstance(value, int | float) and not is_within(value, schema):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    return (
        all(fits_entry(name, entry, schema) for name, entry in value.items())
        and set(schema.get("required", [])) <= set(value)
        if isinstance(value, dict)
        else True
    )


def has_type(value, name):
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def is_within(value, schema):
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    return not (
        (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
    )


def fits_entry(name, value, schema):
    if any(re.search(pattern, name) for pattern in schema.get("patternProperties", {})):
        return True
    rest = schema.get("additionalProperties", {})
    wanted = schema.get("properties", {}).get(name, rest)
    return wanted is not False and fits(value, wanted)


BACKEND = "backends: [{url: 'http://a:1'}]\n"

FIT = [
    "server: {listen: ':8000', workers: 4, max_body_size: 1GiB, read_timeout: 2.5}",
    "server: {workers: '${WORKERS:-2}', read_timeout: '${T:-5s}'}",
    "server: {prefixes: /v1/}",
    "routing: {timeouts: {total: none}, retry: {retry_on: [5xx, 503]}, load_balance: weighted}",
    "auth: {pipeline: [{type: static, keys: [{key: a, expires_at: 2027-01-01}]}, {type: builtin}]}",
    "auth: {pipeline: [{type: webhook, webhook: {url: 'http://a'}}]}",
    "usage: {reporters: [{type: webhook, url: 'http://a', batch_size: 10}]}",
    "models: [{id: a, adapters: [{kind: tool_calls, format: hermes}, {kind: reasoning}]}]",
    "metrics: {enabled: yes}",
    "health_check: {expected_status: 204}",
    "x-anything: {a: [1]}",
]


@pytest.mark.parametrize("text", FIT)
def test_what_loads_fits_the_schema(text):
    parse(BACKEND + text, {}, read_file=open)

    assert fits(plain(BACKEND + text), SCHEMA)


DO_NOT_FIT = [
    "server: {lsten: ':8000'}",
    "server: {workers: many}",
    "server: {workers: 0}",
    "server: {read_timeout: soon}",
    "server: {max_body_size: 10 parsecs}",
    "server: {prefixes: [v1]}",
    "routing: {load_balance: leastconnections}",
    "routing: {retry: {budget: 2}}",
    "auth: {pipeline: [{type: lua}]}",
    "auth: {pipeline: [{name: a}]}",
    "auth: {pipeline: {type: static}}",
    "models: [{name: a}]",
    "models: [{id: a, adapters: [{kind: tool_calls, format: x}]}]",
    "backends: [{weight: 3}]",
    "metrics: {latency_buckets: [0]}",
    "unknown: 1",
]


@pytest.mark.parametrize("text", DO_NOT_FIT)
def test_what_is_refused_does_not_fit_the_schema(text):
    assert not fits(plain(text), SCHEMA)


def test_every_reference_leads_somewhere_and_every_key_is_explained():
    references = set(re.findall(r"'#/\$defs/(\w+)'", repr(SCHEMA)))
    properties = [
        (name, key, shape)
        for name, definition in {"Config": SCHEMA, **SCHEMA["$defs"]}.items()
        for key, shape in definition["properties"].items()
    ]

    assert references == set(SCHEMA["$defs"])
    assert [
        (name, key)
        for name, key, shape in properties
        if not shape.get("description") and "const" not in shape
    ] == []


def test_choices_come_from_the_floors_that_know_them():
    balance = SCHEMA["$defs"]["Routing"]["properties"]["load_balance"]

    assert balance["anyOf"][0]["enum"] == list(balancers.KINDS)


def test_what_the_loader_fills_in_is_in_no_schema():
    assert not {"origin", "notes"} & set(SCHEMA["properties"])


def plain(text):
    """A document as an editor sees it: nothing put in yet."""
    root = Reader(Expander({}, open), lambda problem: None).read(re.sub(r"\$\{", "%{", text))
    return _plain(root)


def _plain(node):
    if isinstance(node.value, dict):
        return {key: _plain(entry) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.value.replace("%{", "${") if isinstance(node.value, str) else node.value
