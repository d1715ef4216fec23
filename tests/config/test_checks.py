# ruff: noqa: E501 (tables read better on one line)
import pytest

from proxy.config import ConfigError, parse

BACKEND = "backends: [{url: 'http://127.0.0.1:8001'}]\n"
DIGEST = "0123456789abcdef" * 4


def load(text, environ=None):
    return parse(text, environ or {}, read_file=open)


def notes(text, environ=None):
    """Those about the configuration itself."""
    return [note for note in load(text, environ).notes if "not in this version" not in note]


def keys(entries):
    return f"auth: {{pipeline: [{{type: static, keys: [{entries}]}}]}}"


REDIS = "storage: {caches: [{name: r}]}\n"
REFUSED = [
    # server
    ("server: {listen: nowhere}", "server.listen", "must be host:port"),
    ("server: {listen: ':99999'}", "server.listen", "must be host:port"),
    ("server: {listen: 'unix:'}", "server.listen", "unix: needs a path"),
    ("server: {max_header_bytes: 100}", "server.max_header_bytes", "1KiB or more"),
    ("server: {prefixes: []}", "server.prefixes", "at least one path"),
    ("server: {tls: {cert_file: a}}", "server.tls.key_file", "TLS needs cert_file and key_file"),
    (
        "server: {tls: {cert_file: a, key_file: b, client_auth: require}}",
        "server.tls.client_ca_file",
        "needs the authorities",
    ),
    ("server: {cors: {allow_credentials: true}}", "server.cors.allow_credentials", "by name"),
    ("metrics: {listen: x}", "metrics.listen", "must be host:port"),
    ("metrics: {listen: '127.0.0.1:8000'}", "metrics.listen", "leave it out"),
    ("admin: {token: abcdefghijklmnopq, listen: '127.0.0.1:8000'}", "admin.listen", "leave it out"),
    ("metrics: {custom_labels: {a-b: c}}", "metrics.custom_labels.a-b", "must be a label name"),
    ("metrics: {latency_buckets: [10, 5]}", "metrics.latency_buckets", "must grow"),
    # storage
    ("storage: {caches: [{name: a}, {name: a}]}", "storage.caches[1].name", "another entry has this name"),
    (
        "storage: {databases: [{name: a}, {name: a}]}",
        "storage.databases[1].name",
        "another entry has this name",
    ),
    ("storage: {caches: [{addr: redis}]}", "storage.caches[0].addr", "must be host:port"),
    ("storage: {databases: [{driver: mysql}]}", "storage.databases[0].database", "write dsn, or host"),
    (
        "storage: {databases: [{driver: mysql, dsn: 'u:p@tcp(h:3306)/d'}]}",
        "storage.databases[0].dsn",
        "must be a URL, postgresql://",
    ),
    # auth
    ("auth: {enabled: true}", "auth.pipeline", "no source knows any key"),
    ("auth: {pipeline: [{type: builtin, enabled: false}]}", "auth.pipeline", "no source knows any key"),
    ("auth: {header_names: [], pipeline: [{type: builtin}]}", "auth.header_names", "at least one header"),
    ("auth: {header_names: ['a b'], pipeline: [{type: builtin}]}", "auth.header_names[0]", "must match"),
    ("auth: {skip_paths: [health], pipeline: [{type: builtin}]}", "auth.skip_paths[0]", "must begin with /"),
    (
        "auth: {pipeline: [{type: builtin, name: a}, {type: file, name: a}]}",
        "auth.pipeline[1].name",
        "another entry has this name",
    ),
    ("auth: {pipeline: [{type: redis}]}", "auth.pipeline[0].storage", "storage.caches has none"),
    (
        REDIS + "auth: {pipeline: [{type: redis, storage: s}]}",
        "auth.pipeline[0].storage",
        "storage.caches has r",
    ),
    (
        "storage: {caches: [{name: r, driver: memory}]}\nauth: {pipeline: [{type: redis, storage: r}]}",
        "auth.pipeline[0].storage",
        "storage.caches has none",
    ),
    (
        REDIS + "auth: {pipeline: [{type: redis, storage: r, key_pattern: 'x:y'}]}",
        "auth.pipeline[0].key_pattern",
        "must hold {api_key} or {sha256}",
    ),
    ("auth: {pipeline: [{type: database}]}", "auth.pipeline[0].storage", "storage.databases has none"),
    (
        "storage: {databases: [{}]}\nauth: {pipeline: [{type: database, table: 'a; drop'}]}",
        "auth.pipeline[0].table",
        "plain SQL name",
    ),
    (
        "storage: {databases: [{}]}\nauth: {pipeline: [{type: database, fields: ['*']}]}",
        "auth.pipeline[0].fields[0]",
        "plain SQL name",
    ),
    ("auth: {pipeline: [{type: webhook, url: 'x'}]}", "auth.pipeline[0].url", "must be a URL"),
    (
        "auth: {pipeline: [{type: webhook, url: 'http://a', headers: {'a b': c}}]}",
        "auth.pipeline[0].headers.(not shown)",
        "is not a header name",
    ),
    ("auth: {pipeline: [{type: python, callable: module}]}", "auth.pipeline[0].callable", "module:function"),
    # keys
    (keys("{name: a}"), "auth.pipeline[0].keys[0]", "write either key or sha256"),
    (keys(f"{{key: a, sha256: {DIGEST}}}"), "auth.pipeline[0].keys[0]", "write either key or sha256"),
    (keys("{key: 'a b'}"), "auth.pipeline[0].keys[0].key", "visible ASCII"),
    (
        keys(f"{{sha256: {DIGEST}, next_sha256: abc}}"),
        "auth.pipeline[0].keys[0].next_sha256",
        "64 hex digits",
    ),
    (
        keys(f"{{sha256: {DIGEST}}}, {{sha256: {DIGEST.upper()}}}"),
        "auth.pipeline[0].keys[1]",
        "stands in an earlier entry",
    ),
    (keys("{key: a}, {key: a}"), "auth.pipeline[0].keys[1]", "stands in an earlier entry"),
    (
        keys("{key: a, allowed_ips: [x]}"),
        "auth.pipeline[0].keys[0].allowed_ips[0]",
        "an address or a network",
    ),
    (
        keys("{key: a, denied_ips: [1.2.3]}"),
        "auth.pipeline[0].keys[0].denied_ips[0]",
        "an address or a network",
    ),
    (
        keys("{key: a, starts_at: 5, expires_at: 5}"),
        "auth.pipeline[0].keys[0].expires_at",
        "later than starts_at",
    ),
    # admin and limits
    ("admin: {}", "admin.token", "is missing"),
    ("admin: {token: abcdefghijklmnopq, listen: x}", "admin.listen", "must be host:port"),
    (
        "admin: {token: abcdefghijklmnopq, allowed_ips: [x]}",
        "admin.allowed_ips[0]",
        "an address or a network",
    ),
    ("rate_limit: {storage: redis}", "rate_limit.redis", "storage.caches has none"),
    (
        "server: {workers: 2}\nrate_limit: {global: {max_concurrent: 1}}",
        "rate_limit.storage",
        "must be shared: write rate_limit.storage: redis and storage.caches",
    ),
    (
        "server: {workers: 2}\n" + keys("{key: a, total_quota: 5}"),
        "auth.pipeline[0].keys[0]",
        "builtin, redis",
    ),
    ("server: {workers: 2}\n" + keys("{key: a, balance: 5}"), "auth.pipeline[0].keys[0]", "builtin, redis"),
    (
        "server: {workers: 2}\n" + keys("{key: a, limits: {max_concurrent: 1}}"),
        "auth.pipeline[0].keys[0].limits",
        "limits must be shared",
    ),
    # models and routing
    ("models: [{id: a}, {id: b, aliases: [a]}]", "models[1].aliases", "another model has this name"),
    ("models: [{id: a, aliases: [a]}]", "models[0].aliases", "another model has this name"),
    ("models: [{id: a, pool: defualt}]", "models[0].pool", "pools has default; did you mean default?"),
    ("routing: {default_pool: ''}\nmodels: [{id: a}]", "models[0].pool", "names none"),
    (
        "models: [{id: a, adapters: [{kind: reasoning}, {kind: reasoning}]}]",
        "models[0].adapters[1].kind",
        "another",
    ),
    (
        "models: [{id: a, adapters: [{kind: reasoning, format: x}]}]",
        "models[0].adapters[0].format",
        "must be one of",
    ),
    (
        "models: [{id: a, adapters: [{kind: tool_calls, trigger: x}]}]",
        "models[0].adapters[0].trigger",
        "toolify_xml",
    ),
    (
        "models: [{id: a, adapters: [{kind: tool_calls, prompt_file: x}]}]",
        "models[0].adapters[0].prompt_file",
        "only mode: prompt",
    ),
    ("models: [{id: a, adapters: [{kind: clamp_max_tokens}]}]", "models[0].adapters[0]", "context_length"),
    ("routing: {default_pool: x}", "routing.default_pool", "pools has default"),
    ("routing: {fallback: [{pools: [x]}]}", "routing.fallback[0].pools[0]", "pools has default"),
    ("routing: {fallback: [{models: [x]}]}", "routing.fallback[0].pools", "pools is missing"),
    ("routing: {retry: {initial_wait: 1m}}", "routing.retry.initial_wait", "longer than max_wait"),
    ("health_check: {path: health}", "health_check.path", "must begin with /"),
    ("health_check: {expected_status: []}", "health_check.expected_status", "at least one status"),
    ("health_check: {healthy_threshold: 0}", "health_check.healthy_threshold", "1 or more"),
    # usage
    ("usage: {reporters: [{type: webhook}]}", "usage.reporters[0].url", "url is missing"),
    ("usage: {reporters: [{type: webhook, url: 'a b'}]}", "usage.reporters[0].url", "must be a URL"),
    (
        'usage: {reporters: [{type: webhook, url: "http://a", headers: {A: "x\\ny"}}]}',
        "usage.reporters[0].headers.A",
        "no header may hold",
    ),
    (
        "storage: {databases: [{}]}\nusage: {reporters: [{type: database, table: 'x y'}]}",
        "usage.reporters[0].table",
        "plain SQL name",
    ),
    (
        "usage: {reporters: [{type: log, name: a}, {type: log, name: a}]}",
        "usage.reporters[1].name",
        "another entry has this name",
    ),
    ("usage: {spool: {max_bytes: 1KiB}}", "usage.spool.max_bytes", "1MiB or more"),
    # discovery
    ("discovery: {sources: [{type: http, url: x}]}", "discovery.sources[0].url", "must be a URL"),
    ("discovery: {sources: [{type: http}]}", "discovery.sources[0].url", "url is missing"),
    ("discovery: {sources: [{type: etcd}]}", "discovery.sources[0].endpoints", "endpoints is missing"),
    (
        "discovery: {sources: [{type: database}]}",
        "discovery.sources[0].storage",
        "storage.databases has none",
    ),
    (
        "discovery: {sources: [{type: static, backends: [{url: x}]}]}",
        "discovery.sources[0].backends[0].url",
        "must be a URL",
    ),
]


@pytest.mark.parametrize(("text", "path", "sentence"), REFUSED)
def test_things_that_do_not_go_together_are_refused(text, path, sentence):
    with pytest.raises(ConfigError) as error:
        load(BACKEND + text)

    found = [(problem.path, problem.sentence) for problem in error.value.problems]
    assert len(found) == 1
    assert found[0][0] == path
    assert sentence in found[0][1]


BACKENDS = [
    ("backends: []", "pools.default", "has no backends"),
    ("pools: {a: {}}", "pools.a", "has no backends"),
    ("{}", "", "no upstream is named"),
    (
        "backends: [{url: 'http://a'}]\npools: {default: {backends: [{url: 'http://b'}]}}",
        "backends",
        "not both",
    ),
    ("backends: [{url: 'http://a'}, {url: 'http://a/'}]", "backends[1].name", "another entry has this name"),
    ("backends: [{url: 'http://a', weight: 0}]", "backends", "every weight is 0"),
    ("backends: [{url: '//a'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://a:x'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://a:0'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://[::1'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://ä'}]", "backends[0].url", "must be a URL"),
    ("backends: [{url: 'http://a?b'}]", "backends[0].url", "must not hold a query"),
    ("backends: [{url: 'http://a#b'}]", "backends[0].url", "must not hold a fragment"),
    ("backends: [{url: 'http://u:p@a'}]", "backends[0].url", "must not hold a user or password"),
    ("backends: [{url: 'http://a', headers: {Host: b}}]", "backends[0].headers.Host", "set by the gateway"),
    (
        "backends: [{url: 'http://a', remove_headers: ['a b']}]",
        "backends[0].remove_headers[0]",
        "a header name",
    ),
    ("backends: [{url: 'http://a', api_key: 'a b'}]", "backends[0].api_key", "visible ASCII"),
    ("backends: [{url: 'http://a', api_keys: ['']}]", "backends[0].api_keys[0]", "is empty"),
    ("backends: [{url: 'http://a', api_keys: ['a b']}]", "backends[0].api_keys[0]", "visible ASCII"),
    ("backends: [{url: 'http://a', api_key: a, api_keys: [b]}]", "backends[0]", "only one of"),
    ("backends: [{url: 'http://a', proxy: 'ftp://b'}]", "backends[0].proxy", "must begin with http:"),
    ("backends: [{url: 'http://a', tls: {cert_file: b}}]", "backends[0].tls", "needs cert_file and key_file"),
    (
        "backends: [{url: 'http://a', oauth: {token_url: x, client_id: y, refresh_token_file: z}}]",
        "backends[0].oauth.token_url",
        "must be a URL",
    ),
]


@pytest.mark.parametrize(("text", "path", "sentence"), BACKENDS)
def test_backends_that_cannot_work_are_refused(text, path, sentence):
    with pytest.raises(ConfigError) as error:
        load(text)

    assert [(problem.path, sentence in problem.sentence) for problem in error.value.problems] == [
        (path, True)
    ]


GOOD = [
    "server: {listen: '[::1]:80'}",
    "server: {listen: ':0'}",
    "server: {listen: 'unix:/run/x.sock'}",
    "server: {tls: {cert_file: a, key_file: b, client_auth: require, client_ca_file: c}}",
    "server: {cors: {allow_credentials: true, allowed_origins: ['https://a']}}",
    "server: {listen: 'localhost:0'}\nmetrics: {listen: 'localhost:0'}",
    "storage: {databases: [{driver: postgres, dsn: 'postgresql+asyncpg://u:p@h/d'}]}",
    "storage: {caches: [{addr: 'unix:/run/redis.sock'}]}",
    "server: {workers: 2}\nrate_limit: {storage: redis, redis: r, global: {max_concurrent: 1}}\n" + REDIS,
    "server: {workers: 2}\n" + keys(f"{{sha256: {DIGEST}}}"),
    "routing: {fallback: [{pools: [default]}]}\nmodels: [{id: a, fallback: [b, c]}, {id: b, aliases: [c]}]",
    "models: [{id: a, context_length: 10, adapters: [{kind: clamp_max_tokens}]}]",
    "models: [{id: a, adapters: [{kind: tool_calls, format: toolify_xml, mode: prompt, trigger: x, prompt_file: y}]}]",
    "discovery: {sources: [{type: http, url: 'http://a'}, {type: kubernetes, service: b}]}",
    "storage: {databases: [{}]}\ndiscovery: {sources: [{type: database}]}",
    "auth: {enabled: false}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_goes_together_loads_without_a_word(text):
    assert notes(BACKEND + text) == []


def test_a_pool_may_wait_for_what_is_discovered():
    config = load("pools: {p: }\ndiscovery: {sources: [{type: dns, host: vllm.local, pool: p}]}")

    assert config.pools["p"].backends == ()


def test_only_discovered_backends_are_enough():
    config = load("discovery: {sources: [{type: dns, host: vllm.local}]}")

    assert config.pools.keys() == {"default"}
    assert config.pools["default"].backends == ()


NOTES = [
    (
        "backends: [{url: 'http://a/v1'}]",
        "backends[0].url: ends with /v1, and the request's own path (/v1/…)",
    ),
    (BACKEND + "usage: {}", "usage: on, but no reporter is"),
    (BACKEND + "rate_limit: {}", "rate_limit: on, but none of global"),
    (BACKEND + "rate_limit: {per_key: {enabled: false, max_concurrent: 1}}", "rate_limit: on, but none"),
    (
        BACKEND + "server: {workers: 2}\nauth: {pipeline: [{type: redis, storage: r}]}\n" + REDIS,
        "auth.pipeline[0]: limits that its keys carry are counted by each worker apart",
    ),
    (BACKEND + "admin: {token: short}", "admin.token: shorter than 16 characters"),
    (BACKEND + keys("{key: sk-a}"), "auth.pipeline[0].keys[0].key: a key in plain text"),
    (
        BACKEND + "auth: {pipeline: [{type: builtin}], status_codes: {disabled: {message: 'Error 429'}}}",
        "auth.status_codes.disabled.message: some clients",
    ),
    (
        BACKEND
        + "auth: {pipeline: [{type: builtin}], status_codes: {expired: {http_code: 401, message: overloaded}}}",
        "auth.status_codes.expired.message: some clients",
    ),
]


@pytest.mark.parametrize(("text", "note"), NOTES)
def test_what_is_odd_but_works_is_noted(text, note):
    (said,) = notes(text)

    assert said.startswith(note)


def test_a_key_from_the_environment_is_no_plain_text():
    assert notes(BACKEND + keys("{key: '${KEY}'}"), {"KEY": "sk-1"}) == []


def test_a_refusal_that_clients_should_retry_may_say_so():
    text = "auth: {pipeline: [{type: builtin}], status_codes: {quota_exceeded: {message: 'Error 429'}}}"

    assert notes(BACKEND + text) == []


def test_a_variable_that_is_missing_is_not_a_second_mistake():
    text = "admin: {token: '${NOPE}'}\nusage: {reporters: [{type: webhook, url: '${NOPE}'}]}\nserver: {tls: '${NOPE}'}"
    text += "\nauth: {pipeline: [{type: '${NOPE}'}, {type: builtin}]}\nlog: {level: '${NOPE}'}\npools: {a: '${NOPE}'}"

    with pytest.raises(ConfigError) as error:
        load(BACKEND + text)

    assert {problem.sentence for problem in error.value.problems} == {
        "the environment variable NOPE is not set"
    }
    assert len(error.value.problems) == 6


def test_a_backend_that_takes_fewer_requests_than_there_are_workers_is_noted():
    text = (
        "backends: [{name: a, url: 'http://a:1', max_in_flight: 2}, {url: 'http://b:1', max_in_flight: 4}]\n"
    )

    (said,) = notes(text + "server: {workers: 4}")

    assert said == (
        "server.workers: backend a in pool default takes 2 at a time and may get 4, one from each worker"
    )
    assert notes(text + "server: {workers: 2}") == []
