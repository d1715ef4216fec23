"""An engine's load from its Prometheus text, under the names of every engine and age.

Only a handful of lines is looked at; vLLM's page has six hundred. What several
engines behind one address (vLLM's data-parallel ranks) or several models say is
added up; the fullest cache counts.
"""

import re
from math import isfinite

from proxy.balancers.load import EngineLoad

# With `:` written as `_`, as some exporters do.
_RUNNING = frozenset(
    (
        b"vllm_num_requests_running",
        b"sglang_num_running_reqs",
        b"tgi_batch_current_size",
        b"llamacpp_requests_processing",
        b"trtllm_num_requests_running",
    )
)
_WAITING = frozenset(
    (
        b"vllm_num_requests_waiting",
        b"vllm_num_requests_swapped",  # until 0.8: started, then put aside for want of memory
        b"sglang_num_queue_reqs",
        b"tgi_queue_size",
        b"llamacpp_requests_deferred",
        b"trtllm_num_requests_waiting",
    )
)
_CACHE = frozenset(
    (
        b"vllm_kv_cache_usage_perc",
        b"vllm_gpu_cache_usage_perc",  # until 0.9
        b"sglang_token_usage",
        b"llamacpp_kv_cache_usage_ratio",
        b"trtllm_kv_cache_utilization",
    )
)

_SAMPLE = re.compile(
    rb"^((?:vllm|sglang|tgi|llamacpp|trtllm)[:_][a-z_]+)(?:\{[^\n]*\})?[ \t]+([^\s]+)", re.MULTILINE
)


def parse(text: bytes) -> EngineLoad | None:
    """The load, or None where the text does not tell it."""
    running: float | None = None
    waiting = 0.0
    cache: float | None = None
    for sample in _SAMPLE.finditer(text):
        name = sample[1].replace(b":", b"_")
        if name in _RUNNING:
            running = (running or 0.0) + _value(sample[2])
        elif name in _WAITING:
            waiting += _value(sample[2])
        elif name in _CACHE:
            cache = max(cache or 0.0, _value(sample[2]))
    return None if running is None else EngineLoad(running, waiting, cache)


def _value(text: bytes) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if isfinite(value) and value > 0.0 else 0.0
