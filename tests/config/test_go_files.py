"""Files as the Go LLMProxy documents them load, or are refused with what to write instead.

The files are written anew from the documented keys; see docs/config.md, last part.
"""
# ruff: noqa: E501 (tables read better on one line)

import pytest

from proxy.config import ConfigError, parse, parse_keys
from proxy.config.schema_usage import WebhookReporter

COMPLETE = """
server:
  listen: ":8000"
  read_timeout: 30s
  write_timeout: 60s
  idle_timeout: 120s
  max_header_bytes: 1048576
  max_body_size: 10485760
  cors:
    enabled: true
    allowed_origins: ["*"]
    allowed_methods: ["GET", "POST", "OPTIONS"]
    allowed_headers: ["Authorization", "Content-Type"]
    expose_headers: ["X-Request-ID"]
    allow_credentials: false
    max_age: 86400
  tls:
    enabled: false
    cert_file: ""
    key_file: ""
    client_ca_file: ""
    client_auth: none

log:
  level: info
  format: json
  output: stdout
  file:
    path: ./logs/llmproxy.log
    rotate: daily
    max_size: 100
    max_age: 30
    compress: true

storage:
  databases:
    - name: primary
      enabled: true
      driver: mysql
      host: 127.0.0.1
      port: 3306
      user: llmproxy
      password: "${DB_PASSWORD:-}"
      database: llmproxy
      max_open_conns: 50
      max_idle_conns: 10
      conn_max_lifetime: 1h
      conn_max_idle_time: 10m
    - name: local
      enabled: true
      driver: sqlite
      path: ./data/llmproxy.db
  caches:
    - name: default
      enabled: true
      driver: redis
      addr: 127.0.0.1:6379
      password: ""
      db: 0
      pool_size: 100
      min_idle_conns: 10
      dial_timeout: 5s
      read_timeout: 3s
      write_timeout: 3s
    - name: mem
      enabled: true
      driver: memory
      max_size: 1000
      ttl: 5m

backends:
  - name: vllm-1
    url: http://vllm-1:8000
    weight: 5
    timeout: 60s
    connect_timeout: 5s
    max_idle_conns: 100
    headers:
      X-Backend: one
  - name: vllm-2
    url: http://vllm-2:8000
    weight: 3

discovery:
  enabled: false
  mode: merge
  interval: 30s
  script:
    enabled: false
  sources:
    - name: db
      type: database
      enabled: true
      database:
        storage: primary
        table: services
        fields: {name: name, url: endpoint, weight: weight, status: status}
    - name: fixed
      type: static
      enabled: true
      static:
        backends:
          - {name: s1, url: "http://s1:8000"}
    - name: consul
      type: consul
      enabled: false
      consul: {addr: "consul:8500", service: vllm, tag: prod, interval: 10s}
    - name: k8s
      type: kubernetes
      enabled: false
      kubernetes: {namespace: ai, service: vllm, port: 8000, label_selector: "app=vllm"}
    - name: etcd
      type: etcd
      enabled: false
      etcd: {endpoints: ["http://etcd:2379"], prefix: /services/, username: u, password: p}
    - name: http
      type: http
      enabled: false
      http: {url: "http://registry/services", method: GET, interval: 30s, timeout: 10s, headers: {X-A: b}}

auth:
  enabled: true
  mode: first_match
  skip_paths: [/health, /metrics]
  header_names: [Authorization, X-API-Key, api-key]
  script:
    enabled: false
    path: ./scripts/auth.lua
  status_codes:
    active: {allow: true}
    disabled: {allow: false, http_code: 403, message: "API Key 已禁用"}
    expired: {allow: false, http_code: 403, message: "API Key 已过期"}
    quota_exceeded: {allow: false, http_code: 429, message: "配额已用尽"}
    not_found: {allow: false, http_code: 401, message: "无效的 API Key"}
  pipeline:
    - name: cache
      type: redis
      enabled: true
      redis: {storage: default, key_pattern: "llmproxy:key:{api_key}"}
    - name: db
      type: database
      enabled: true
      database:
        storage: primary
        table: api_keys
        key_column: api_key
        fields: [user_id, status, total_quota, used_quota, expires_at]
    - name: remote
      type: webhook
      enabled: true
      webhook: {url: "http://auth:8080/verify", method: POST, timeout: 5s, headers: {X-Secret: s}}
    - name: script
      type: lua
      enabled: false
      lua: {path: ./scripts/key.lua, timeout: 100ms, max_memory: 10}
    - name: fixed
      type: static
      enabled: true
      static:
        keys:
          - key: sk-test-1
            name: test
            user_id: user_1
            status: 0
            total_quota: 1000000
            used_quota: 0
            quota_reset_period: monthly
            last_reset_at: "2026-01-01T00:00:00Z"
            allowed_ips: ["10.0.0.0/8"]
            denied_ips: []
            expires_at: "2027-12-31T23:59:59Z"
            created_at: "2026-01-01T00:00:00Z"
            updated_at: "2026-01-01T00:00:00Z"
          - {key: sk-test-2, status: 1}
          - {key: sk-test-3, status: 2}
          - {key: sk-test-4, status: 3}
          - {key: sk-test-5, status: disabled}
    - name: builtin
      type: builtin
      enabled: true

admin:
  enabled: true
  token: a-token-that-is-long-enough
  listen: ":8001"
  db_path: ./data/keys.db

logging:
  enabled: true
  request:
    enabled: false
    storage: primary
    table: request_logs
    include_body: true
    script: {enabled: false}
  access:
    enabled: true
    format: combined
    output: file
    file: {path: ./logs/access.log}
    script: {enabled: false}

rate_limit:
  enabled: true
  storage: redis
  redis: default
  script: {enabled: false}
  global: {enabled: true, requests_per_second: 1000, requests_per_minute: 30000, burst_size: 2000}
  per_key:
    enabled: true
    requests_per_second: 10
    requests_per_minute: 600
    tokens_per_minute: 100000
    max_concurrent: 5
    burst_size: 20

routing:
  enabled: true
  load_balance: weighted
  timeout: 60s
  connect_timeout: 5s
  script: {enabled: false}
  retry:
    {enabled: true, max_retries: 3, initial_wait: 1s, max_wait: 10s, multiplier: 2.0, retry_on: [502, 503, 504]}

health_check:
  enabled: true
  interval: 30s
  timeout: 5s
  path: /health
  method: GET
  expected_status: 200
  unhealthy_threshold: 3
  healthy_threshold: 2
  script: {enabled: false}

metrics:
  enabled: true
  path: /metrics
  custom_labels: []
  latency_buckets: [10, 50, 100, 500, 1000]

usage:
  enabled: true
  script: {enabled: false}
  reporters:
    - name: billing
      type: webhook
      enabled: true
      webhook: {url: "http://billing:3000/usage", method: POST, timeout: 3s, retry: 2, headers: {X-Secret: s}}
      script: {enabled: false}
    - name: table
      type: database
      enabled: true
      database: {storage: primary, table: usage_records}
    - name: local
      type: builtin
      enabled: true
      builtin: {retention_days: 30}

hooks:
  enabled: false
  on_request: {enabled: true, path: ./scripts/on_request.lua, timeout: 100ms}
"""

MINIMAL = """
listen: ":8000"
backends:
  - url: "http://localhost:8000"
    weight: 1
usage_hook:
  enabled: true
  url: "http://localhost:3000/usage"
  timeout: 3s
  retry: 2
health_check:
  interval: 10s
  path: /health
"""


def load(text, environ=None):
    return parse(text, environ or {}, read_file=open, origin="config.yaml")


def test_the_complete_file_loads_with_the_meaning_its_keys_have_there():
    config = load(COMPLETE)

    backend = config.pools["default"].backends[0]
    assert (config.server.listen, config.server.max_body_size, config.server.idle_timeout) == (
        ":8000",
        10485760,
        120,
    )
    assert config.server.cors.max_age == 86400
    assert (backend.weight, backend.headers) == (5, {"X-Backend": "one"})
    assert (backend.timeouts.connect, backend.timeouts.first_byte, backend.timeouts.idle) == (5, 60, 60)
    assert backend.timeouts.total is None
    assert config.pools["default"].load_balance == "weighted"
    assert config.pools["default"].retry.retry_on == (502, 503, 504)
    assert config.pools["default"].health_check.interval == 30
    assert [source.name for source in config.auth.pipeline] == ["cache", "db", "remote", "fixed", "builtin"]
    assert config.auth.status_codes.not_found.message == "无效的 API Key"
    statuses = [key.status for key in config.auth.pipeline[3].keys]
    assert statuses == ["active", "disabled", "quota_exceeded", "expired", "disabled"]
    assert config.rate_limit.per_key.tokens_per_minute == 100000
    assert (config.logging.access.format, config.logging.access.file.path) == ("text", "logs/access.log")
    assert [reporter.name for reporter in config.usage.reporters] == ["billing", "table", "local"]
    assert config.usage.reporters[2].retention_days == 30
    assert config.storage.databases[0].driver == "mysql"


def test_keys_with_nothing_to_do_are_noted_and_not_refused():
    notes = "\n".join(load(COMPLETE).notes)

    for path in (
        "server.write_timeout",
        "backends[0].max_idle_conns",
        "storage.databases[0].conn_max_idle_time",
        "storage.caches[0].min_idle_conns",
        "storage.caches[1].ttl",
        "usage.reporters[0].webhook.retry",
    ):
        assert f"{path}: nothing to do." in notes
    assert "routing.enabled" not in notes
    assert "auth.pipeline[4].static.keys[0].key: a key in plain text" in notes


def test_the_old_short_form_loads():
    config = load(MINIMAL)

    assert config.server.listen == ":8000"
    (hook,) = config.usage.reporters
    assert isinstance(hook, WebhookReporter)
    assert (hook.name, hook.url, hook.timeout) == ("usage_hook", "http://localhost:3000/usage", 3)
    assert config.usage.enabled


def test_limits_per_minute_alone_limit_and_do_not_block():
    config = load(MINIMAL + "rate_limit: {enabled: true, per_key: {enabled: true, requests_per_minute: 60}}")

    per_key = config.rate_limit.per_key
    assert (per_key.requests_per_minute, per_key.requests_per_second, per_key.burst_size) == (60, None, None)


BACKEND = "backends: [{url: 'http://a:1'}]\n"

REFUSED = [
    (
        "auth: {pipeline: [{type: lua, lua: {path: x.lua}}, {type: builtin}]}",
        "auth.pipeline[0]",
        "type: python",
    ),
    ("auth: {script: ./auth.lua, pipeline: [{type: builtin}]}", "auth.script", "scripts are not run"),
    (
        "auth: {pipeline: [{type: builtin, script: {path: x}}]}",
        "auth.pipeline[0].script",
        "scripts are not run",
    ),
    ("routing: {script: {enabled: true, path: x}}", "routing.script", "scripts are not run"),
    ("rate_limit: {script: {path: x}}", "rate_limit.script", "scripts are not run"),
    ("health_check: {script: x.lua}", "health_check.script", "scripts are not run"),
    ("discovery: {script: x.lua}", "discovery.script", "scripts are not run"),
    ("usage: {script: x.lua}", "usage.script", "scripts are not run"),
    ("usage: {reporters: [{type: log, script: x.lua}]}", "usage.reporters[0].script", "scripts are not run"),
    ("logging: {access: {script: x.lua}}", "logging.access.script", "scripts are not run"),
    ("hooks: {enabled: true, on_auth: {path: x}}", "hooks", "auth.pipeline"),
    ("hooks: {on_auth: {path: x}}", "hooks", "take this section out"),
    ("log: {output: file, file: {path: x.log}}", "log.file", "write output: stderr"),
    ("log: {output: both, file: {path: x.log}}", "log.file", "write output: stderr"),
    ("logging: {request: {enabled: true, include_body: true}}", "logging.request", "type: database"),
    ("logging: {request: {enabled: true, storage: primary}}", "logging.request", "type: database"),
    (
        "logging: {request: {enabled: true, include_body: true}}",
        "logging.request.include_body",
        "never stored",
    ),
    (
        "logging: {access: {output: file, file: {path: a, rotate: daily, max_size: 1}}}",
        "logging.access.file.rotate",
        "logrotate",
    ),
    (
        "usage: {reporters: [{type: webhook, url: 'http://a', include_request_body: true}]}",
        "usage.reporters[0].include_request_body",
        "bodies are never stored or sent on",
    ),
    (
        "routing: {fallback: [{models: [gpt-4], primary: 'http://a:1', fallback: ['http://b:1']}]}",
        "routing.fallback[0]",
        "pools: [spare]",
    ),
    ("routing: {model_mapping: {gpt-4: qwen}}", "routing.model_mapping", "upstream_model"),
    ("metrics: {custom_labels: [team]}", "metrics.custom_labels[0]", "custom_labels: {name: value}"),
]


@pytest.mark.parametrize(("text", "path", "sentence"), REFUSED)
def test_what_we_do_not_do_is_refused_with_what_to_write(text, path, sentence):
    with pytest.raises(ConfigError) as error:
        load(BACKEND + text)

    assert any(problem.path == path and sentence in problem.sentence for problem in error.value.problems)
    assert all("unknown key" not in problem.sentence for problem in error.value.problems)


ACCEPTED = [
    ("hooks:", lambda c: c.notes, ()),
    ("hooks: {}", lambda c: c.notes, ()),
    ("routing: {script: }", lambda c: c.notes, ()),
    ("routing: {script: ''}", lambda c: c.notes, ()),
    ("routing: {model_mapping: {}}", lambda c: c.routing.load_balance, "least_connections"),
    (
        "routing: {enabled: false}",
        lambda c: c.notes,
        ("routing.enabled: nothing to do. Routing is always on.",),
    ),
    ("usage_hook: {enabled: false, url: 'http://a'}", lambda c: c.usage.reporters, ()),
    ("usage:\nusage_hook: {url: 'http://a'}", lambda c: len(c.usage.reporters), 1),
    ("usage: {reporters: [{type: log}]}\nusage_hook: {url: 'http://a'}", lambda c: len(c.usage.reporters), 2),
    ("server:\nlisten: ':9'", lambda c: c.server.listen, ":9"),
    ("server: {listen: ':8'}\nlisten: ':9'", lambda c: c.server.listen, ":8"),
    ("logging: {enabled: false, access: {enabled: true}}", lambda c: c.logging.access.enabled, False),
    ("logging: {enabled: true, access: {enabled: false}}", lambda c: c.logging.access.enabled, False),
    ("logging: {access: {file: {path: a, rotate: daily}}}", lambda c: c.logging.access.output, "stdout"),
    ("logging: {access: }", lambda c: c.logging.access.enabled, True),
    ("usage: {reporters: [{type: log, include_body: false}]}", lambda c: len(c.usage.reporters), 1),
    ("storage: {databases: [{driver: sqlite3}]}", lambda c: c.storage.databases[0].driver, "sqlite"),
    (
        "storage: {databases: [{driver: postgresql, database: d}]}",
        lambda c: c.storage.databases[0].driver,
        "postgres",
    ),
    ("metrics: {custom_labels: [{name: team, value: a}]}", lambda c: c.metrics.custom_labels, {"team": "a"}),
    ("metrics: {custom_labels: {team: a}}", lambda c: c.metrics.custom_labels, {"team": "a"}),
]


@pytest.mark.parametrize(("text", "value", "expected"), ACCEPTED)
def test_what_is_off_or_means_the_same_is_accepted(text, value, expected):
    assert value(load(BACKEND + text)) == expected


def test_a_key_file_may_hold_a_list_or_a_mapping_and_numbers_for_statuses():
    digest = "0" * 64
    listed, _ = parse_keys(f"- {{sha256: '{digest}', status: 1}}", {}, read_file=open)
    mapped, _ = parse_keys(f"keys: [{{sha256: '{digest}', status: disabled}}]", {}, read_file=open)
    none, _ = parse_keys("", {}, read_file=open)

    assert listed == mapped
    assert none == ()


def test_a_key_file_names_its_mistakes():
    with pytest.raises(ConfigError) as error:
        parse_keys(
            "keys:\n  - {sha256: x, nam: a}\n  - {key: a, status: 7}\n",
            {},
            read_file=open,
            origin="keys.yaml",
        )

    assert str(error.value).splitlines() == [
        "keys.yaml:2: keys[0].nam: unknown key, did you mean name?",
        "keys.yaml:2: keys[0].sha256: must be 64 hex digits; `llmproxy keys hash` prints them",
        'keys.yaml:3: keys[1].status: found "7"; must be one of active, disabled, expired, quota_exceeded',
    ]
