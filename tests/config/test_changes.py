import pytest

from proxy.config import needs_restart, parse, sidecar
from proxy.config.problems import ConfigError

BACKEND = "backends: [{url: 'http://127.0.0.1:8001'}]\n"


def load(text):
    return parse(BACKEND + text, {}, read_file=open)


def test_what_a_reload_cannot_change_is_named():
    old = load("")
    new = load(
        "server: {listen: ':9', workers: 2, shutdown_timeout: 1s, tls: {cert_file: a, key_file: b}}\n"
        "usage: {spool: {path: x.db, max_bytes: 2GiB}, reporters: [{type: log}]}\n"
        "log: {level: debug}\n"
        "health_check: {interval: 5s}\n"
    )

    assert needs_restart(old, new) == ("server.listen", "server.workers", "server.tls", "usage.spool.path")


def test_everything_else_follows_a_reload():
    new = load(
        "models: [{id: a}]\nrate_limit: {global: {max_concurrent: 3}}\nrouting: {load_balance: weighted}"
    )

    assert needs_restart(load(""), new) == ()
    assert needs_restart(new, new) == ()


def test_a_sidecar_needs_no_file():
    config = sidecar("http://127.0.0.1:9", {})

    assert config.pools["default"].backends[0].url == "http://127.0.0.1:9"
    assert (config.server.listen, config.auth.enabled) == ("127.0.0.1:8000", False)


def test_a_sidecar_follows_the_environment():
    environ = {"LLMPROXY_LISTEN": ":9", "LLMPROXY_UPSTREAM_KEY": "up", "LLMPROXY_UPSTREAM": "http://other"}

    config = sidecar("http://127.0.0.1:9", environ)

    assert config.server.listen == ":9"
    assert config.pools["default"].backends[0].api_key == "up"
    assert config.pools["default"].backends[0].url == "http://127.0.0.1:9"


def test_a_sidecar_with_a_bad_url_is_refused():
    with pytest.raises(ConfigError) as error:
        sidecar("127.0.0.1:9", {"LLMPROXY_UPSTREAM_KEY": "${file:/etc/passwd}"})

    assert "must be a URL such as http://host:8000" in str(error.value)
