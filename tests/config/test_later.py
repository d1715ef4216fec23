"""What comes later is said, and what is there is not."""

import pytest

from proxy.config import later, parse

BACKEND = "backends: [{url: 'http://a:1'}]\n"

# Entries whose line was taken out of later.py are not asked for any more.
EXAMPLES = {
    "server.workers": BACKEND + "server: {workers: 2}",
    "auth.mode: all": BACKEND + "auth: {mode: all, pipeline: [{type: file}]}",
    "auth.pipeline: types other than static and file": BACKEND + "auth: {pipeline: [{type: builtin}]}",
    "rate_limit.storage: redis": BACKEND
    + "storage: {caches: [{}]}\nrate_limit: {storage: redis, global: {max_concurrent: 1}}",
    "models[].adapters: this kind": BACKEND + "models: [{id: a, adapters: [{kind: prefix_guard}]}]",
    "models[].ask_usage": BACKEND + "models: [{id: a, ask_usage: true}]",
    "models[].sse_keep_alive": BACKEND + "models: [{id: a, sse_keep_alive: 10s}]",
    "routing.queue": BACKEND + "routing: {queue: {}}",
    "routing.hedge": BACKEND + "routing: {hedge: {}}",
    "routing.affinity": BACKEND + "routing: {affinity: {bound: 2}}",
    "backends[].api_keys": "backends: [{url: 'http://a:1', api_keys: [a, b]}]",
    "backends[].oauth": "backends: [{url: 'http://a:1', oauth: {token_url: 'http://b', client_id: c, "
    "refresh_token_file: d}}]",
    "backends[].proxy": "backends: [{url: 'http://a:1', proxy: 'http://b:2'}]",
    "discovery": "discovery: {sources: [{type: dns, host: a}]}",
    "usage.spool.on_full: refuse": BACKEND + "usage: {reporters: [{type: log}], spool: {on_full: refuse}}",
    "logging.long_running_after": BACKEND + "logging: {long_running_after: 10m}",
    "admin": BACKEND + "admin: {token: abcdefghijklmnopq}",
}


@pytest.mark.parametrize("path", [path for path, _ in later.LATER])
def test_what_is_not_there_yet_is_said(path):
    assert parse(EXAMPLES[path], {}, read_file=open).notes == (
        f"{path}: not in this version; it has no effect",
    )


def test_nothing_is_said_of_what_is_there():
    text = BACKEND + "auth: {pipeline: [{type: file}]}\nserver: {workers: 1}\ndiscovery: {enabled: false}"

    assert parse(text, {}, read_file=open).notes == ()
