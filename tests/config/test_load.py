# ruff: noqa: E501 (tables read better on one line)
import pytest

from proxy.config import ConfigError, parse
from proxy.config.schema_pools import Timeouts

BACKEND = "backends: [{url: 'http://127.0.0.1:8001'}]\n"

DESIGN = """
server: {listen: "127.0.0.1:8000", max_body_size: 32MiB, read_timeout: 10s}
auth:
  enabled: true
  header_names: [Authorization, X-API-Key]
  pipeline:
    - {name: local, type: static, keys: [{key: sk-example, name: alice, user_id: u1}]}
    - {name: file, type: file, path: keys.yaml}
backends:
  - {name: vllm-a, url: "http://127.0.0.1:8001", weight: 5, api_key: "${VLLM_KEY:-}"}
models:
  - {id: qwen, name: Qwen3 Coder, pool: default, upstream_model: Qwen/Qwen3-Coder, adapters: [{kind: tool_calls, format: qwen3_xml, mode: template}]}
routing: {load_balance: least_connections, retry: {enabled: false}, timeouts: {connect: 2s, first_byte: 5m, idle: 5m}}
rate_limit: {enabled: true, per_key: {enabled: true, requests_per_second: 10, burst_size: 20, max_concurrent: 8}}
health_check: {enabled: false}
usage: {enabled: true, reporters: [{name: billing, type: webhook, enabled: true, webhook: {url: "http://127.0.0.1:9000/usage", timeout: 3s}}]}
metrics: {enabled: true}
"""

DESIGN_AS_JSON = """
{
\t"server": {"listen": "127.0.0.1:8000", "max_body_size": "32MiB", "read_timeout": "10s"},
\t"auth": {"enabled": true, "header_names": ["Authorization", "X-API-Key"], "pipeline": [
\t\t{"name": "local", "type": "static", "keys": [{"key": "sk-example", "name": "alice", "user_id": "u1"}]},
\t\t{"name": "file", "type": "file", "path": "keys.yaml"}]},
\t"backends": [
\t\t{"name": "vllm-a", "url": "http:\\/\\/127.0.0.1:8001", "weight": 5, "api_key": "${VLLM_KEY:-}"}],
\t"models": [{"id": "qwen", "name": "Qwen3 Coder", "pool": "default", "upstream_model": "Qwen/Qwen3-Coder",
\t\t"adapters": [{"kind": "tool_calls", "format": "qwen3_xml", "mode": "template"}]}],
\t"routing": {"load_balance": "least_connections", "retry": {"enabled": false},
\t\t"timeouts": {"connect": "2s", "first_byte": "5m", "idle": "5m"}},
\t"rate_limit": {"enabled": true,
\t\t"per_key": {"enabled": true, "requests_per_second": 10, "burst_size": 20, "max_concurrent": 8}},
\t"health_check": {"enabled": false},
\t"usage": {"enabled": true, "reporters": [{"name": "billing", "type": "webhook", "enabled": true,
\t\t"webhook": {"url": "http://127.0.0.1:9000/usage", "timeout": "3s"}}]},
\t"metrics": {"enabled": true}
}
"""


def load(text, environ=None, *, read_file=open, origin="config"):
    return parse(text, environ or {}, read_file=read_file, origin=origin)


def problems(text, environ=None):
    with pytest.raises(ConfigError) as error:
        load(text, environ, origin="conf.yaml")
    return error.value.problems


def test_the_designs_example_loads():
    config = load(DESIGN, {"VLLM_KEY": "up"})

    (pool,) = config.pools.values()
    (backend,) = pool.backends
    assert config.server.max_body_size == 32 * 1024**2
    assert (backend.name, backend.weight, backend.api_key) == ("vllm-a", 5, "up")
    assert backend.timeouts == Timeouts(connect=2.0, first_byte=300.0, idle=300.0)
    assert config.models[0].adapters[0].format == "qwen3_xml"
    assert config.rate_limit.per_key.max_concurrent == 8
    assert config.usage.reporters[0].url == "http://127.0.0.1:9000/usage"
    assert not config.health_check.enabled
    assert [source.name for source in config.auth.pipeline] == ["local", "file"]


def test_it_loads_as_json_too():
    assert load(DESIGN_AS_JSON) == load(DESIGN)


def test_one_backend_is_a_configuration():
    config = load(BACKEND)

    assert config.server.listen == "127.0.0.1:8000"
    assert (config.auth.enabled, config.rate_limit.enabled, config.usage.enabled) == (False, False, False)
    assert config.metrics.enabled
    assert config.routing.default_pool == "default"
    assert config.pools["default"].backends[0].name == "127.0.0.1:8001"
    assert config.notes == ()


def test_a_written_section_is_on_and_an_empty_one_is_not():
    assert load(BACKEND + "health_check: {interval: 5s}").health_check.enabled
    assert not load(BACKEND + "health_check:\n").health_check.enabled
    assert not load(BACKEND + "health_check: {enabled: no, interval: 5s}").health_check.enabled


EVERYTHING_WRONG = """\
server:
  lsten: ":80"
  listen: 8000
  workers: many
  max_body_size: 10 parsecs
  read_timeout: 0
  trusted_proxies: [10.0.0.0/99, 10.0.0.1]
auth:
  pipeline:
    - type: static
      keys:
        - {sha256: 12, name: a}
        - nonsense
    - type: lua
    - type: webhok
    - name: nothing
backends:
  - url: ftp://x
  - weight: 3
  - "http://x"
models:
  - {id: a, pool: nope, adapters: [{kind: tool_calls, format: qwen}]}
  - {id: a}
  - nonsense
  - {id: b, fallback: [zz]}
routing:
  load_balance: leastconnections
  retry: {max_retries: -1}
hooks: {enabled: true}
usage: {reporters: [{type: webhook, url: "${NOPE}"}, {type: database}]}
rate_limit: {per_key: {requests_per_minute: x}}
rate_limit: {}
"""

SAID = """\
conf.yaml:2: server.lsten: unknown key, did you mean listen?
conf.yaml:3: server.listen: found "8000"; must be host:port, :port, [::1]:port or unix:/path
conf.yaml:4: server.workers: found "many"; must be a whole number from 1 to 256
conf.yaml:5: server.max_body_size: found "10 parsecs"; must be a size such as 64KiB or 100MiB
conf.yaml:6: server.read_timeout: found "0"; must be a duration such as 250ms, 30s or 10m, above zero
conf.yaml:7: server.trusted_proxies[0]: found "10.0.0.0/99"; must be an address or a network, 10.0.0.7 or 10.0.0.0/8
conf.yaml:12: auth.pipeline[0].keys[0].sha256: must be 64 hex digits; `llmproxy keys hash` prints them
conf.yaml:13: auth.pipeline[0].keys[1]: found text; must be a mapping, `key: value`
conf.yaml:14: auth.pipeline[1]: Lua is not run; write type: python with callable: module:function, or type: webhook with url
conf.yaml:15: auth.pipeline[2].type: found "webhok"; must be one of static, file, builtin, redis, database, webhook, python; did you mean webhook?
conf.yaml:16: auth.pipeline[3].type: type is missing; one of static, file, builtin, redis, database, webhook, python
conf.yaml:18: backends[0].url: found "ftp://x"; must be a URL such as http://host:8000
conf.yaml:19: backends[1].url: url is missing
conf.yaml:20: backends[2]: found text; must be a mapping, `key: value`
conf.yaml:22: models[0].adapters[0].format: found "qwen"; must be one of
conf.yaml:22: models[0].pool: found "nope"; pools has default
conf.yaml:23: models[1].id: found "a"; another model has this name already
conf.yaml:24: models[2]: found text; must be a mapping, `key: value`
conf.yaml:25: models[3].fallback[0]: found "zz"; models has a, a, b
conf.yaml:27: routing.load_balance: found "leastconnections"; must be one of
conf.yaml:28: routing.retry.max_retries: found "-1"; must be a whole number from 0 to 20
conf.yaml:29: hooks: hooks are not run
conf.yaml:30: usage.reporters[0].url: the environment variable NOPE is not set
conf.yaml:30: usage.reporters[1].storage: found "default"; storage.databases has none
conf.yaml:32: rate_limit: written twice, first in line 31
"""


def test_every_mistake_is_named_at_once_with_its_line():
    with pytest.raises(ConfigError) as error:
        load(EVERYTHING_WRONG, origin="conf.yaml")

    said = str(error.value).splitlines()
    for line, expected in zip(said, SAID.splitlines(), strict=True):
        assert line.startswith(expected)


def test_a_section_written_twice_is_refused_and_the_second_one_checked():
    first_is_wrong = BACKEND + "log: {level: nope}\nlog: {}\n"
    second_is_wrong = BACKEND + "log: {}\nlog: {level: nope}\n"

    assert [problem.path for problem in problems(first_is_wrong)] == ["log"]
    assert [problem.path for problem in problems(second_is_wrong)] == ["log", "log.level"]


LEAVES = [
    ("server: {workers: 1.5}", "must be a whole number from 1 to 256"),
    ("server: {workers: true}", "must be a whole number"),
    ("server: {workers: [1]}", "found a list; must be a whole number"),
    ("server: {workers: 257}", "must be a whole number from 1 to 256"),
    ("server: {max_body_size: 1.5}", "must be a size"),
    ("server: {max_body_size: -1}", "must be a size"),
    ("server: {max_body_size: true}", "must be a size"),
    ("server: {read_timeout: -1}", "must be a duration"),
    ("server: {read_timeout: .inf}", "must be a duration"),
    ("server: {prefixes: [v1]}", "must match ^/"),
    ("server: {prefixes: {a: b}}", "found a mapping; must be a list; begin each entry with `- `"),
    ("server: 7", "found a number; must be a mapping"),
    ("server: {listen: [a]}", "found a list; must be text"),
    ("log: {level: [info]}", "found a list; must be one of"),
    ("log: {level: inf}", 'found "inf"; must be one of debug, error, info, warning; did you mean info?'),
    ("metrics: {enabled: maybe}", "must be true or false"),
    ("metrics: {enabled: 1}", "must be true or false"),
    ("metrics: {enabled: [true]}", "found a list; must be true or false"),
    ("pools: 7\nbackends: [{url: 'http://a'}]", "found a number; must be a mapping"),
    ("backends: [{url: 'http://a', timeout: 1s, timeouts: 3}]", "found a number; must be a mapping"),
    ("discovery: {sources: [{type: static, pool: b, backends: [{}]}]}", "url is missing"),
    ("metrics: {latency_buckets: [1, x]}", "must be a number above 0"),
    ("routing: {retry: {multiplier: 0.5}}", "must be a number, 1 or more"),
    ("routing: {retry: {budget: 2}}", "must be a number from 0 to 1"),
    ("routing: {retry: {retry_on: [200]}}", "must be a whole number from 400 to 599, or one of 5xx"),
    ("routing: {retry: {retry_on: [sometimes]}}", "or one of 5xx, first_byte_timeout, no_answer"),
    ("models: [{id: ''}]", "must not be empty"),
    ("models: {id: a}", "must be a list; begin each entry with `- `"),
    ("models: [{id: a, adapters: [tool_calls]}]", "must be a mapping"),
    ("pools: {a: 7}", "found a number; must be a mapping"),
    ("auth: {pipeline: [{type: [static]}]}", "found a list; must be one of"),
    ("nonsense: 1", "unknown key; allowed here: server, log, auth"),
    ("[]", "must be a mapping of sections"),
]


@pytest.mark.parametrize(("text", "sentence"), LEAVES)
def test_a_leaf_that_does_not_fit_says_what_does(text, sentence):
    assert any(
        sentence in str(problem) for problem in problems(f"{text}\nx-rest: 1\n" if text != "[]" else text)
    )


FORGIVEN = [
    ("server: {workers: '${N}'}", lambda c: c.server.workers, 3),
    ("server: {read_timeout: '${N}'}", lambda c: c.server.read_timeout, 3.0),
    ("metrics: {enabled: '${NO}'}", lambda c: c.metrics.enabled, False),
    ("metrics: {enabled: off}", lambda c: c.metrics.enabled, False),
    ("server: {prefixes: /api/}", lambda c: c.server.prefixes, ("/api/",)),
    ("server: {workers: }", lambda c: c.server.workers, 1),
    ("server: {tls: {enabled: false, min_version: 1.3}}", lambda c: c.server.tls.min_version, "1.3"),
    ("log: {level: warn}", lambda c: c.log.level, "warning"),
    ("health_check: {expected_status: 204}", lambda c: c.health_check.expected_status, (204,)),
    ("routing: {timeouts: {total: none}}", lambda c: c.routing.timeouts.total, None),
    ("routing: {timeouts: {total: 10m}}", lambda c: c.routing.timeouts.total, 600.0),
    ("routing: {retry: {retry_on: [5xx, 429]}}", lambda c: c.routing.retry.retry_on, ("5xx", 429)),
    (
        "rate_limit: {global: {requests_per_second: 5}}",
        lambda c: c.rate_limit.global_.requests_per_second,
        5.0,
    ),
    ("storage: {caches: [{password: 0123}]}", lambda c: c.storage.caches[0].password, "0123"),
    ("storage: {caches: [{password: '${N}'}]}", lambda c: c.storage.caches[0].password, "3"),
    ("pools:\n", lambda c: list(c.pools), ["default"]),
    ("x-mine: {a: 1}", lambda c: c.origin, "config"),
]


@pytest.mark.parametrize(("text", "value", "expected"), FORGIVEN)
def test_what_is_clear_is_taken_as_it_is_meant(text, value, expected):
    assert value(load(BACKEND + text, {"N": "3", "NO": "no"})) == expected


def test_times_are_seconds_since_1970():
    keys = """
auth:
  pipeline:
    - type: static
      keys:
        - {key: "${A}", starts_at: 2027-01-31, expires_at: 2027-01-31T12:00:00+02:00}
        - {key: "${B}", starts_at: 100, expires_at: 2027-01-31T12:00:00}
"""
    config = load(BACKEND + keys, {"A": "aaa", "B": "bbb"})

    first, second = config.auth.pipeline[0].keys
    assert (first.starts_at, first.expires_at) == (1801353600.0, 1801389600.0)
    assert (second.starts_at, second.expires_at) == (100.0, 1801396800.0)


def test_pools_inherit_key_by_key():
    config = load("""
routing:
  load_balance: round_robin
  timeouts: {connect: 1s, idle: 30s, total: 1h}
  retry: {max_retries: 2, retry_on: [503]}
health_check: {interval: 5s}
pools:
  a:
    backends: [{url: "http://a:1"}]
    load_balance: weighted
    timeouts: {idle: 60s, total: none}
    retry: {enabled: false}
    health_check: {path: /ping}
  b:
    backends:
      - {url: "http://b:1", connect_timeout: 3s, timeout: 40s, timeouts: {idle: 50s}}
""")

    a, b = config.pools["a"], config.pools["b"]
    assert (a.load_balance, b.load_balance) == ("weighted", "round_robin")
    assert a.timeouts == Timeouts(connect=1.0, idle=60.0, total=None)
    assert a.backends[0].timeouts == a.timeouts
    assert b.timeouts == Timeouts(connect=1.0, idle=30.0, total=3600.0)
    assert b.backends[0].timeouts == Timeouts(connect=3.0, first_byte=40.0, idle=50.0, total=3600.0)
    assert (a.retry.enabled, a.retry.max_retries, a.retry.retry_on) == (False, 2, (503,))
    assert (a.health_check.path, a.health_check.interval, a.health_check.enabled) == ("/ping", 5.0, True)
    assert b.health_check == config.health_check


def test_a_mistake_that_pools_inherit_is_named_once_where_it_stands():
    text = "routing: {timeouts: {conect: 1s}, retry: {max_retries: x}}\npools: {a: {backends: [{url: 'http://a:1'}]}}"

    assert [problem.path for problem in problems(text)] == [
        "routing.retry.max_retries",
        "routing.timeouts.conect",
    ]


def test_discovered_backends_inherit_their_pools_timeouts():
    config = load("""
pools: {a: {timeouts: {connect: 1s}}}
discovery:
  sources:
    - {type: static, pool: a, backends: [{url: "http://a:1"}]}
    - {type: dns, host: vllm.local}
    - {type: dns, host: vllm.other}
""")

    static, *others = config.discovery.sources
    assert static.backends[0].timeouts.connect == 1.0
    assert [source.name for source in others] == ["dns", "dns-2"]


POOLS = [
    ("pools: {a: {backends: [{url: 'http://a:1'}]}}", "a"),
    ("pools: {a: {backends: [{url: 'http://a:1'}]}, b: {backends: [{url: 'http://a:1'}]}}", ""),
    ("pools: {a: {backends: [{url: 'http://a:1'}]}, default: {backends: [{url: 'http://a:1'}]}}", "default"),
    (BACKEND + "pools: {a: {backends: [{url: 'http://a:1'}]}}", "default"),
    (BACKEND + "routing: {default_pool: ''}", ""),
]


@pytest.mark.parametrize(("text", "expected"), POOLS)
def test_the_default_pool_is_the_one_that_is_meant(text, expected):
    assert load(text).routing.default_pool == expected


def test_models_without_a_pool_get_the_default_pool():
    config = load(BACKEND + "models: [{id: a}, {id: b, pool: default}]")

    assert [model.pool for model in config.models] == ["default", "default"]


def test_paths_start_where_they_should():
    text = (
        BACKEND
        + """
server: {tls: {cert_file: tls/cert.pem, key_file: /etc/key.pem}}
auth: {pipeline: [{type: file, path: keys.yaml}]}
models: [{id: a, adapters: [{kind: tool_calls, mode: prompt, prompt_file: prompt.txt}]}]
usage: {reporters: [{type: builtin}]}
"""
    )
    config = load(text, origin="/etc/llmproxy/conf.yaml")
    service = load(text, {"STATE_DIRECTORY": "/var/lib/llmproxy:/other"}, origin="/etc/llmproxy/conf.yaml")

    assert (config.server.tls.cert_file, config.server.tls.key_file) == (
        "/etc/llmproxy/tls/cert.pem",
        "/etc/key.pem",
    )
    assert config.auth.pipeline[0].path == "/etc/llmproxy/keys.yaml"
    assert config.models[0].adapters[0].prompt_file == "/etc/llmproxy/prompt.txt"
    assert config.server.tls.client_ca_file == ""
    assert config.usage.spool.path == "data/spool"
    assert service.usage.spool.path == "/var/lib/llmproxy/data/spool"
    assert service.usage.reporters[0].path == "/var/lib/llmproxy/data/usage_records.db"


def test_files_are_put_in_by_the_callers_reader():
    config = load(
        BACKEND.replace("}", ", api_key: '${file:secret}'}"), read_file={"secret": "abc\n"}.__getitem__
    )

    assert config.pools["default"].backends[0].api_key == "abc"


def test_the_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        load(BACKEND).server.workers = 2


@pytest.mark.parametrize("text", ["", "~", "{}", "# nothing", "x-only: {backends: []}"])
def test_no_section_at_all_is_refused_with_what_to_write(text):
    (problem,) = problems(text)

    assert "no upstream is named" in str(problem)
