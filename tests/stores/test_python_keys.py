"""Keys that a function knows."""

import asyncio
import threading

import pytest

from proxy.access import digest
from proxy.stores.cached_keys import CachedStore, Memory
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.python_keys import THREADS, BadCallable, PythonKeys, load_callable

KEY = "sk-canary"


async def ask(check):
    store = PythonKeys("script", check)
    try:
        return await store.find(digest(KEY.encode()), KEY)
    finally:
        await store.close()


async def test_true_and_false_are_answers():
    assert (await ask(lambda key: True)).status == "active"
    assert (await ask(lambda key: False)).status == "disabled"
    assert await ask(lambda key: None) is None


async def test_an_answer_may_say_all_that_a_key_carries():
    found = await ask(lambda key: {"allow": True, "name": "alice", "allowed_models": ["a"], "total_quota": 5})

    assert (found.name, found.allowed_models, found.quota.total) == ("alice", ("a",), 5)


REFUSED = [
    ({"allow": False}, "disabled"),
    ({"allow": False, "reason": "expired"}, "expired"),
    ({"allow": False, "reason": "quota_exceeded"}, "quota_exceeded"),
    ({"allow": False, "status": "active"}, "disabled"),
    ({"status": "disabled"}, "disabled"),
    ({"status": 3}, "expired"),
    ({"allow": True, "status": "disabled"}, "disabled"),
]


@pytest.mark.parametrize(("answer", "status"), REFUSED)
async def test_a_no_is_a_no_however_it_is_said(answer, status):
    assert (await ask(lambda key: answer)).status == status


@pytest.mark.parametrize("answer", [{"allow": False, "reason": "not_found"}, {"status": "not_found"}])
async def test_an_answer_may_say_that_there_is_no_such_key(answer):
    assert await ask(lambda key: answer) is None


@pytest.mark.parametrize(
    "answer", [{}, {"name": "alice"}, {"allow": "yes"}, {"allow": 1}, {"status": ""}, 1, "yes", []]
)
async def test_what_is_no_answer_lets_nobody_in(answer):
    with pytest.raises(LookupFailed):
        await ask(lambda key: answer)


async def test_what_the_function_raises_is_told_by_its_name_alone():
    def check(key):
        raise KeyError(key)

    with pytest.raises(LookupFailed, match="KeyError") as raised:
        await ask(check)

    assert KEY not in f"{raised.value!r}{raised.value.__cause__!r}"


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration])
async def test_whatever_the_function_raises_ends_nothing_but_its_call(kind, error):
    def check(key):
        raise error

    async def later(key):
        raise error

    with pytest.raises(LookupFailed, match="the function raised"):
        await ask(check if kind == "plain" else later)


async def test_a_plain_function_does_not_hold_up_the_loop():
    gate = threading.Event()
    waiting = asyncio.create_task(ask(lambda key: gate.wait(10)))
    await asyncio.sleep(0)

    gate.set()

    assert (await waiting).status == "active"


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_function_that_takes_too_long_is_no_answer(kind):
    gate, event = threading.Event(), asyncio.Event()

    async def later(key):
        await event.wait()

    store = PythonKeys("script", gate.wait if kind == "plain" else later)
    cached = CachedStore(store, Memory(), timeout=0.01, monotonic=lambda: 0.0, wall=lambda: 0.0)

    with pytest.raises(StoreUnavailable):
        await cached.find(digest(b"a"), b"a")

    gate.set()
    await cached.close()


async def test_functions_that_never_return_leave_the_rest_of_the_gateway_alone():
    gate = threading.Event()
    store = PythonKeys("script", lambda key: gate.wait(10))
    stuck = [asyncio.create_task(store.find(digest(b"a"), "a")) for _ in range(THREADS)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(store.find(digest(b"b"), "b"))
    done, _ = await asyncio.wait([waiting], timeout=0.01)

    assert not done
    gate.set()
    assert [found.status for found in await asyncio.gather(*stuck, waiting)] == ["active"] * (THREADS + 1)
    await store.close()


# -- finding it -------------------------------------------------------------------------


def test_a_function_is_found_beside_the_configuration(tmp_path):
    (tmp_path / "checks.py").write_text(
        "class Rules:\n    @staticmethod\n    def check(key): return key == 'a'\n"
    )

    assert load_callable("checks:Rules.check", tmp_path)("a") is True


def test_it_is_read_anew_each_time(tmp_path):
    file = tmp_path / "checks.py"
    file.write_text("def check(key): return False\n")
    assert load_callable("checks:check", tmp_path)("a") is False
    file.write_text("def check(key): return 'changed' == 'changed'\n")

    assert load_callable("checks:check", tmp_path)("a") is True


def test_a_file_may_bear_the_name_of_a_module_that_is_needed_elsewhere(tmp_path):
    (tmp_path / "json.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass check:\n    key: 'str'\n"
    )

    assert load_callable("json:check", tmp_path)("a").key == "a"
    import json

    assert json.dumps([]) == "[]"


def test_an_installed_module_will_do(tmp_path):
    assert load_callable("os.path:basename", tmp_path)("/a/b") == "b"


MISSING = [
    ("nowhere:check", "cannot be imported"),
    ("broken:check", "SyntaxError"),
    ("raising:check", "RuntimeError: no database"),
    ("good:nothing", "no such function"),
    ("good:number", "no such function"),
    ("good:check.deeper", "no such function"),
]


@pytest.mark.parametrize(("name", "said"), MISSING)
def test_a_function_that_cannot_be_used_is_said_why(tmp_path, name, said):
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "raising.py").write_text("raise RuntimeError('no database')\n")
    (tmp_path / "good.py").write_text("number = 5\ndef check(key): return None\n")

    with pytest.raises(BadCallable, match=said):
        load_callable(name, tmp_path)
