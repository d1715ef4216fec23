"""What a start loads: most configurations have no adapters and find no backends by themselves."""

import subprocess
import sys

from kit.gateway import ROOT

SHOW = "import sys, proxy.workers, proxy.server; print(*sys.modules)"
FOR_FEW = {"proxy.adapters.chat", "proxy.adapters.tool_calls.scanner", "proxy.upstream.discovery.sources"}
FOR_EXTRAS = {"redis", "sqlalchemy"}


def test_what_few_configurations_need_is_loaded_for_them_alone():
    shown = subprocess.run([sys.executable, "-c", SHOW], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())

    assert "proxy.runtime.generation" in loaded
    assert not loaded & (FOR_FEW | FOR_EXTRAS)
