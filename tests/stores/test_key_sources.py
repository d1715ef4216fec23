"""From the configuration to a pipeline that answers."""

import os
from textwrap import dedent

import pytest
from kit.key_worlds import RedisWorld, WebhookWorld, sqlite_world

from proxy.access import Answer, digest
from proxy.config import ConfigError, parse
from proxy.stores.cached_keys import ASK
from proxy.stores.key_editor import KeyEditor
from proxy.stores.key_sources import KeyServices, answers, open_pipeline, read_sources

NOW = 1_773_576_000.0


@pytest.fixture
def configure(tmp_path):
    def configure(text):
        text = dedent(text) + "\nbackends: [{name: a, url: 'http://127.0.0.1:1'}]\n"
        return parse(text, {}, read_file=lambda name: "", origin=str(tmp_path / "llmproxy.yaml"))

    return configure


@pytest.fixture
async def opened(configure):
    """Opens what a configuration describes; closes it after the test."""
    closing = []

    async def opened(text, audited=lambda entry: None):
        config = configure(text)
        services = KeyServices(config, audited)
        pipeline = await open_pipeline(read_sources(config, os.environ), services)
        closing.extend([pipeline, services])
        return pipeline, services

    yield opened
    for each in closing:
        await each.close()


async def find(pipeline, key):
    return await pipeline.find(digest(key.encode()), key.encode())


async def test_static_keys_and_files_are_known_at_once(opened, tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text("keys: [{key: sk-bob, name: bob}]")
    path.chmod(0o600)

    pipeline, _ = await opened(
        """auth: {pipeline: [
             {type: static, keys: [{key: sk-alice, name: alice}]}, {type: file, path: keys.yaml}]}"""
    )

    assert pipeline.find_nowait(digest(b"sk-alice")).name == "alice"
    assert pipeline.find_nowait(digest(b"sk-bob")).name == "bob"
    assert pipeline.find_nowait(digest(b"sk-carol")) is None


async def test_a_source_that_is_off_is_not_asked(opened):
    pipeline, _ = await opened(
        """auth: {pipeline: [
             {type: static, name: a, enabled: false, keys: [{key: sk-alice}]},
             {type: file, path: nowhere.yaml, enabled: false},
             {type: static, name: b, keys: [{key: sk-bob}]}]}"""
    )

    assert pipeline.find_nowait(digest(b"sk-alice")) is None
    assert pipeline.find_nowait(digest(b"sk-bob")) is not None


async def test_the_built_in_database_is_a_source(opened, tmp_path):
    entries = []
    path = tmp_path / "own.db"
    pipeline, services = await opened(
        f"auth: {{pipeline: [{{type: builtin, path: {path}}}]}}", entries.append
    )
    assert await find(pipeline, "sk-alice") is None

    database = services.database(str(path))
    await database.change(
        lambda book: KeyEditor(book, "x", NOW).create(digest(b"sk-alice"), {"name": "alice"})
    )

    assert (await find(pipeline, "sk-alice")).name == "alice"
    assert [entry["action"] for entry in entries] == ["create"]
    assert services.database(str(path)) is database


async def test_redis_is_a_source(opened, running_redis):
    world = RedisWorld(running_redis, "llmproxy:key:{api_key}", is_hash=True)
    await world.start()
    await world.put("sk-alice", name="alice")

    pipeline, _ = await opened(
        f"""
        auth: {{pipeline: [{{type: redis, storage: shared}}]}}
        storage: {{caches: [{{name: other}}, {{name: shared, addr: 'unix:{running_redis.socket}'}}]}}
        """
    )

    assert pipeline.find_nowait(digest(b"sk-alice")) is ASK
    assert (await find(pipeline, "sk-alice")).name == "alice"
    assert pipeline.find_nowait(digest(b"sk-alice")).name == "alice"
    await world.close()


async def test_a_database_is_a_source(opened, tmp_path):
    world = sqlite_world(tmp_path)
    await world.start()
    await world.put("sk-alice", name="alice")

    pipeline, _ = await opened(
        f"""
        auth: {{pipeline: [{{type: database, fields: [name], timeout: 5s}}]}}
        storage: {{databases: [{{name: default, driver: sqlite, path: {tmp_path / "keys.sqlite"}}}]}}
        """
    )

    assert (await find(pipeline, "sk-alice")).name == "alice"
    await world.close()


async def test_a_webhook_is_a_source(opened):
    world = WebhookWorld()
    await world.start()
    await world.put("sk-alice", name="alice")

    pipeline, _ = await opened(f"auth: {{pipeline: [{{type: webhook, url: '{world.url}'}}]}}")

    assert (await find(pipeline, "sk-alice")).name == "alice"
    assert await find(pipeline, "sk-bob") is None
    await world.close()


async def test_a_reload_goes_on_with_what_an_unchanged_source_remembers(opened, configure):
    world = WebhookWorld()
    await world.start()
    await world.put("sk-alice", name="alice")
    text = f"auth: {{pipeline: [{{type: webhook, url: '{world.url}'}}]}}"
    before, services = await opened(text)
    await find(before, "sk-alice")
    await find(before, "sk-bob")

    after = await open_pipeline(read_sources(configure(text), {}), services)
    changed = await open_pipeline(read_sources(configure(text.replace("keys'", "keys?v=2'")), {}), services)

    assert after.find_nowait(digest(b"sk-alice")).name == "alice"
    assert after.find_nowait(digest(b"sk-bob")) is None
    assert changed.find_nowait(digest(b"sk-alice")) is ASK
    assert [source.lookups for source in (*after.cached(), *changed.cached())] == [2, 0]
    await after.close()
    await changed.close()
    await world.close()


async def test_a_function_is_a_source(opened, tmp_path):
    text = "def check(key): return {'allow': True, 'name': 'alice'} if key == 'sk-alice' else None"
    (tmp_path / "checks.py").write_text(text)

    pipeline, _ = await opened("auth: {pipeline: [{type: python, callable: 'checks:check'}]}")

    assert (await find(pipeline, "sk-alice")).name == "alice"
    assert await find(pipeline, "sk-bob") is None


async def test_quotas_of_static_keys_are_counted_across_reloads_and_restarts(opened, configure, tmp_path):
    text = f"""
        auth: {{pipeline: [{{type: static, keys: [{{key: sk-alice, total_quota: 100}}]}}]}}
        admin: {{enabled: false, db_path: {tmp_path / "keys.db"}}}
        """
    pipeline, services = await opened(text)
    pipeline.debit(await find(pipeline, "sk-alice"), tokens=60)
    reloaded = await open_pipeline(read_sources(configure(text), os.environ), services)
    assert (await find(reloaded, "sk-alice")).quota.used == 60
    await services.ledger.close()

    again, _ = await opened(text)

    assert (await find(again, "sk-alice")).quota.used == 60


async def test_no_database_is_made_for_keys_without_quotas(opened, tmp_path):
    await opened(
        f"""
        auth: {{pipeline: [{{type: static, keys: [{{key: sk-alice}}]}}]}}
        admin: {{enabled: false, db_path: {tmp_path / "state" / "keys.db"}}}
        """
    )

    assert not (tmp_path / "state").exists()


def test_everything_that_is_wrong_in_any_file_is_said_at_once(configure, tmp_path):
    (tmp_path / "open.yaml").write_text("keys: []")
    (tmp_path / "open.yaml").chmod(0o644)
    (tmp_path / "bad.yaml").write_text("keys:\n- {sha256: 12}\n- {colour: red}\n")
    (tmp_path / "bad.yaml").chmod(0o600)
    config = configure(
        """auth: {pipeline: [
             {type: file, name: a, path: open.yaml},
             {type: file, name: b, path: bad.yaml},
             {type: python, callable: 'nowhere:check'}]}"""
    )

    with pytest.raises(ConfigError) as raised:
        read_sources(config, os.environ)

    said = str(raised.value)
    assert "0644" in said
    assert "bad.yaml:2:" in said
    assert "bad.yaml:3:" in said
    assert "auth.pipeline[2]: nowhere cannot be imported" in said
    assert len(raised.value.problems) >= 4


def test_a_static_key_stands_in_one_entry_only_in_whatever_form(configure):
    hexed = digest(b"sk-canary").hex()
    config = configure(
        f"auth: {{pipeline: [{{type: static, keys: [{{key: sk-canary}}, {{sha256: {hexed}}}]}}]}}"
    )

    with pytest.raises(ConfigError, match=r"pipeline\[0\].keys\[1\]: .* \(keys\[0\]\)") as raised:
        read_sources(config, os.environ)

    assert "canary" not in str(raised.value)


def test_notes_name_their_file(configure, tmp_path):
    (tmp_path / "keys.yaml").write_text("keys: [{key: sk-canary}]")
    (tmp_path / "keys.yaml").chmod(0o600)

    read = read_sources(configure("auth: {pipeline: [{type: file, path: keys.yaml}]}"), os.environ)

    assert len(read.notes) == 1
    assert "keys.yaml" in read.notes[0]
    assert "canary" not in read.notes[0]


def test_a_quota_in_a_file_is_not_counted_by_several_workers(configure, tmp_path):
    (tmp_path / "keys.yaml").write_text(f"keys: [{{sha256: {'ab' * 32}, total_quota: 5}}]")
    (tmp_path / "keys.yaml").chmod(0o600)
    config = configure("server: {workers: 2}\nauth: {pipeline: [{type: file, path: keys.yaml}]}")

    with pytest.raises(ConfigError, match="several workers"):
        read_sources(config, os.environ)


def test_limits_in_a_file_are_not_counted_by_several_workers_apart(configure, tmp_path):
    (tmp_path / "keys.yaml").write_text(f"keys: [{{sha256: {'ab' * 32}, limits: {{max_concurrent: 1}}}}]")
    (tmp_path / "keys.yaml").chmod(0o600)
    workers = "server: {workers: 2}\nauth: {pipeline: [{type: file, path: keys.yaml}]}\n"
    shared = "rate_limit: {storage: redis, redis: r}\nstorage: {caches: [{name: r}]}"

    with pytest.raises(ConfigError, match=r"rate_limit\.storage: redis"):
        read_sources(configure(workers), {})
    assert len(read_sources(configure(workers + shared), {}).tables["file"]) == 1


def test_status_codes_are_those_of_the_configuration(configure):
    config = configure(
        """auth: {pipeline: [{type: static, keys: [{key: a}]}], status_codes: {
             disabled: {http_code: 402, message: Call us.}, not_found: {allow: true}}}"""
    )

    found = answers(config.auth.status_codes)

    assert found.disabled == Answer(False, 402, "Call us.")
    assert found.not_found.allow
    assert found.error(None) is None
    assert found.error("expired").status == 403
