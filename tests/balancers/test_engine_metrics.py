"""Metrics as engines write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balancers.engine_metrics import parse
from proxy.balancers.load import EngineLoad

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-0.6B"} 16.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-0.6B"} 24.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-0.6B",reason="capacity"} 24.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-0.6B"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3-0.6B"} 1.2345e+06
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-0.6B"} 0.0
"""
VLLM_TWO_RANKS = b"""vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.9
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.1
"""
VLLM_OLD = b"""vllm:num_requests_running{model_name="m"} 5.0
vllm:num_requests_swapped{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 2.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:cpu_cache_usage_perc{model_name="m"} 0.0
"""
SGLANG = b"""sglang:num_running_reqs{model_name="meta-llama/Llama-3.1-8B"} 162.0
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B"} 7.0
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B"} 0.28
"""
TGI = b"""# TYPE tgi_queue_size gauge
tgi_queue_size 3
tgi_batch_current_size 12
tgi_batch_current_max_tokens 9000
"""
LLAMA_SERVER = b"""# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
llamacpp:kv_cache_usage_ratio 0.125
llamacpp:n_decode_total 100
"""
TRTLLM = b'trtllm_num_requests_running 4\ntrtllm_num_requests_waiting{x="1"} 1\n'

CASES = [
    (VLLM, EngineLoad(16, 24, 0.25)),
    (VLLM_TWO_RANKS, EngineLoad(7, 2, 0.9)),
    (VLLM_OLD, EngineLoad(5, 3, 0.5)),
    (VLLM.replace(b"vllm:", b"vllm_"), EngineLoad(16, 24, 0.25)),
    (SGLANG, EngineLoad(162, 7, 0.28)),
    (TGI, EngineLoad(12, 3, None)),
    (LLAMA_SERVER, EngineLoad(2, 1, 0.125)),
    (TRTLLM, EngineLoad(4, 1, None)),
    (TGI.replace(b"\n", b"\r\n"), EngineLoad(12, 3, None)),
    (b'vllm:num_requests_running{model_name="a } b {"} 1.0 1700000000000', EngineLoad(1, 0, None)),
    (b"vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n", EngineLoad(0, 0, None)),
    (b"vllm:num_requests_running many\n", EngineLoad(0, 0, None)),
    (b"vllm:num_requests_running -3\n", EngineLoad(0, 0, None)),
    (b"", None),
    (b"<html>not found</html>", None),
    (b"vllm:num_requests_waiting 5\n", None),
    (b"my_vllm:num_requests_running 5\n", None),
    (b"process_cpu_seconds_total 5\n", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_reads_every_engines_names(text: bytes, expected: EngineLoad | None) -> None:
    assert parse(text) == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_ignored(noise: bytes) -> None:
    for text in (noise, b"vllm:num_requests_running" + noise, b"vllm:num_requests_running{" + noise):
        load = parse(text)
        assert load is None or load.running >= 0
