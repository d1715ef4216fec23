"""Modules compiled in place: they never hide what was changed since, and fit those that are not compiled."""

import os
import pkgutil
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from kit.gateway import ROOT

import proxy


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package, with nothing compiled in it."""
    shutil.copytree(ROOT / "proxy", tmp_path / "proxy", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", "check", "no-such-file.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def compiled(checkout: Path, *, seconds_after_source: float) -> None:
    """A file where the compiler would put one; nobody imports it for this command."""
    source = checkout / "proxy" / "web" / "relay.py"
    made = source.with_name("relay.cpython-311-x86_64-linux-gnu.so")
    made.write_bytes(b"")
    at = source.stat().st_mtime + seconds_after_source
    os.utime(made, (at, at))


def test_a_module_changed_after_it_was_compiled_is_named(checkout: Path) -> None:
    compiled(checkout, seconds_after_source=-60)
    ended = run(checkout)
    assert ended.returncode == 1
    assert "web/relay.py was changed after it was compiled" in ended.stderr


@pytest.mark.parametrize("later", [0, 60])
def test_what_was_compiled_since_is_used(checkout: Path, later: float) -> None:
    compiled(checkout, seconds_after_source=later)
    ended = run(checkout)
    assert "compiled" not in ended.stderr
    assert "no-such-file.yaml" in ended.stderr


def test_to_install_without_compiling_takes_away_what_was_compiled(checkout: Path) -> None:
    compiled(checkout, seconds_after_source=-60)
    shutil.copy(ROOT / "Makefile", checkout)
    made = ["make", "install", "COMPILE=", f"PYTHON={sys.executable}", "VENV=environment"]
    (checkout / "environment/bin").mkdir(parents=True)
    for name in ("bin/python", ".installed"):  # as if everything else were there already
        (checkout / "environment" / name).touch()
    for name in ("setup.cfg", "pyproject.toml"):
        (checkout / name).touch()
        os.utime(checkout / name, (0, 0))

    subprocess.run(made, cwd=checkout, capture_output=True, timeout=60, check=True)

    assert not list(checkout.rglob("*.so"))
    assert "no-such-file.yaml" in run(checkout).stderr


@pytest.mark.skipif(not list((ROOT / "proxy").glob("*.so")), reason="nothing is compiled here")
def test_no_class_inherits_from_one_that_is_compiled_without_being_so_itself() -> None:
    """mypyc's classes cannot be subclassed by interpreted ones: making an object of such a class fails."""
    found = [
        f"{one.__module__}.{one.__name__} inherits from {base.__name__}"
        for module in modules()
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__ and not is_compiled(one)
        for base in one.__mro__[1:]
        if is_compiled(base)
    ]
    assert found == []


def modules() -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(proxy.__path__, "proxy.")]
    return [import_module(name) for name in names if not name.endswith(("__main__", "__mypyc"))]


def is_compiled(one: type) -> bool:
    return one.__module__.startswith("proxy.") and "__mypyc_attrs__" in vars(one)
