"""The unit files: hardened, complete, and where `make install-systemd` puts them."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config.schema import Config

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "systemd" / "llmproxy.service"

# prctl(2): no page may become executable after it was writable, in this process and its children.
PR_SET_MDWE = 65


def service():
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(SERVICE)
    return parser["Service"]


def install(folder, *settings):
    command = ["make", "--no-print-directory", "install-systemd", f"DESTDIR={folder}", *settings]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_is_exposed_as_little_as_it_can_be():
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(SERVICE)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    (level,) = re.findall(r"Overall exposure level for llmproxy.service: ([0-9.]+)", said)
    assert float(level) <= 1.5


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_units_hold_only_what_systemd_knows():
    files = [str(path) for path in (ROOT / "systemd").glob("*.s[oe]*") if path.suffix != ".sysusers"]
    result = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False
    )

    said = [
        line for line in result.stderr.splitlines() if "llmproxy" in line and "is not executable" not in line
    ]
    assert len(files) == 2
    assert said == []


def test_stopping_leaves_time_for_the_streams_that_run():
    assert float(service()["TimeoutStopSec"]) > Config().server.shutdown_timeout


def test_it_is_started_reloaded_and_watched_as_the_program_expects():
    section = service()

    assert section["Type"] == "notify"
    assert section["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(section["WatchdogSec"]) > 0
    assert (section["LimitCORE"], section["DynamicUser"], section["StateDirectory"]) == (
        "0",
        "yes",
        "llmproxy",
    )


def test_it_installs_into_a_folder(tmp_path):
    install(tmp_path)

    unit = (tmp_path / "lib/systemd/system/llmproxy.service").read_text()
    assert unit == SERVICE.read_text()
    assert (tmp_path / "lib/systemd/system/llmproxy.socket").exists()
    assert (tmp_path / "usr/lib/sysusers.d/llmproxy.conf").exists()
    assert (tmp_path / "etc/llmproxy/llmproxy.yaml").exists()
    assert (tmp_path / "etc/llmproxy/credentials").stat().st_mode & 0o777 == 0o700


def test_it_installs_for_another_place_and_keeps_a_configuration(tmp_path):
    configuration = tmp_path / "srv/llm/llmproxy.yaml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("mine")

    install(tmp_path, "PREFIX=/usr/local", "CONFDIR=/srv/llm")

    unit = (tmp_path / "lib/systemd/system/llmproxy.service").read_text()
    assert "ExecStart=/usr/local/bin/llmproxy run -c /srv/llm/llmproxy.yaml" in unit
    assert "LoadCredential=credentials:/srv/llm/credentials" in unit
    assert "/etc/llmproxy/" not in unit
    assert configuration.read_text() == "mine"


def test_the_program_runs_where_no_page_may_become_executable():
    command = [sys.executable, "-c", PROGRAM_UNDER_MDWE]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    if result.stdout == "unsupported\n":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert (result.stdout, result.returncode) == ("refused\n", 0), result.stderr


PROGRAM_UNDER_MDWE = f"""
import ctypes, importlib, mmap, ssl, sys
if ctypes.CDLL(None).prctl({PR_SET_MDWE}, 1, 0, 0, 0) != 0:
    sys.exit(print("unsupported"))
for name in ("proxy.server", "aiohttp", "orjson", "uvloop", "redis.asyncio", "sqlalchemy.ext.asyncio"):
    importlib.import_module(name)
ssl.create_default_context()
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    print("refused")
"""
