"""No message, note or repr shows key material, whatever is wrong around it."""

import re

import pytest

from proxy.config import ConfigError, parse, parse_keys
from proxy.config.schema import Config
from proxy.config.types import confidential_names

CANARY = "sk-canary-7f3a9c01d2e4b5a6"
BACKEND = "backends: [{url: 'http://127.0.0.1:8001'}]\n"

MISTAKES = [
    "auth: {pipeline: [{type: static, keys: [CANARY]}]}",
    "auth: {pipeline: [{type: static, keys: CANARY}]}",
    "auth: {pipeline: [{type: static, keys: {CANARY: alice}}]}",
    "auth: {pipeline: [{type: static, keys: [{CANARY: alice}]}]}",
    "auth: {pipeline: [{type: static, keys: [{CANARY: alice, CANARY: bob}]}]}",
    "auth: {pipeline: [{type: static, keys: [{CANARY: '${NOPE}'}]}]}",
    "auth: {pipeline: [{type: static, keys: [{key: [CANARY]}]}]}",
    "auth: {pipeline: [{type: static, keys: [{key: {a: CANARY}}]}]}",
    "auth: {pipeline: [{type: static, keys: [{key: 'CANARY with space'}]}]}",
    "auth: {pipeline: [{type: static, keys: [{sha256: CANARY}]}]}",
    "auth: {pipeline: [{type: static, keys: [{key: CANARY}, {key: CANARY}]}]}",
    "auth: {pipeline: [{type: static, keys: [{key: CANARY, sha256: CANARY}]}]}",
    "auth: {pipeline: [{type: webhook, url: 'http://a:CANARY@b'}]}",
    "auth: {pipeline: [{type: webhook, url: 'http://a', headers: {X: ['CANARY']}}]}",
    "auth: {pipeline: [{type: webhook, url: 'http://a', headers: CANARY}]}",
    'auth: {pipeline: [{type: webhook, url: "http://a", headers: {X: "CANARY\\n"}}]}',
    "pools: {a: {backends: [{url: 'http://a:CANARY@b'}]}}",
    "pools: {a: {backends: [{url: 'ftp://a:CANARY@b'}]}}",
    "pools: {a: {backends: [{url: 'http://a', api_key: [CANARY]}]}}",
    "pools: {a: {backends: [{url: 'http://a', api_key: 'CANARY x'}]}}",
    "pools: {a: {backends: [{url: 'http://a', api_keys: ['CANARY x']}]}}",
    "pools: {a: {backends: [{url: 'http://a', api_keys: {CANARY: 1}}]}}",
    "pools: {a: {backends: [{url: 'http://a', proxy: 'ftp://a:CANARY@b'}]}}",
    "pools: {a: {backends: [{url: 'http://a', headers: {Connection: CANARY}}]}}",
    "storage: {databases: [{driver: postgres, dsn: 'u:CANARY@tcp(h)/d'}]}",
    "storage: {caches: [{password: [CANARY]}]}",
    "admin: {token: [CANARY]}",
    "usage: {reporters: [{type: webhook, url: 'http://a', secret: {a: CANARY}}]}",
    "log: {level: '${CANARY_VARIABLE}'}",
    "server: {workers: '${CANARY_VARIABLE}'}",
    "server: {listen: '${CANARY_VARIABLE}'}",
    "server: {read_timeout: '${CANARY_VARIABLE}'}",
    "models: [{id: a, pool: '${CANARY_VARIABLE}'}]",
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_problem_shows_a_key(mistake):
    text = BACKEND + mistake.replace("CANARY_VARIABLE", "VARIABLE").replace("CANARY", CANARY)

    with pytest.raises(ConfigError) as error:
        parse(text, {"VARIABLE": CANARY}, read_file=open)

    said = str(error.value) + repr(error.value)
    assert "canary" not in said.lower()
    assert "7f3a" not in said


@pytest.mark.parametrize(
    "text", ["- CANARY", "CANARY", "- {CANARY: 1}", "- {key: CANARY, x: 1}", "keys: [{key: [CANARY]}]"]
)
def test_no_problem_of_a_key_file_shows_a_key(text):
    with pytest.raises(ConfigError) as error:
        parse_keys(text.replace("CANARY", CANARY), {}, read_file=open)

    assert "canary" not in str(error.value)


def test_neither_notes_nor_repr_show_a_key():
    text = f"""
backends: [{{url: "http://127.0.0.1:8001", api_key: {CANARY}, headers: {{X: {CANARY}}}}}]
auth: {{pipeline: [{{type: static, keys: [{{key: {CANARY}}}]}}]}}
admin: {{token: {CANARY}}}
usage: {{reporters: [{{type: webhook, url: "http://a", secret: {CANARY}, headers: {{X: {CANARY}}}}}]}}
storage: {{caches: [{{password: {CANARY}}}], databases: [{{dsn: "postgresql://u:{CANARY}@h/d"}}]}}
"""
    config = parse(text, {}, read_file=open)

    assert "canary" not in repr(config)
    assert "canary" not in repr(config.notes)
    assert "api_key=…" in repr(config.pools)
    assert "api_key=''" in repr(parse(BACKEND, {}, read_file=open).pools)


def test_every_field_that_sounds_like_a_secret_is_one():
    from msgspec import inspect

    from proxy.config.reflect import all_structs

    sounds = re.compile(r"^(api_keys?|key|.*sha256|token|.*secret|password|dsn|headers)$")
    for section, wanted in all_structs(inspect.type_info(Config)).items():
        named = {field.name for field in wanted.fields if sounds.match(field.name)}
        assert named - {"headers"} <= confidential_names(section), section
