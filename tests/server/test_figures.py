"""What /metrics shows, and how the figures of several processes become one page."""

import asyncio
import signal

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.receiver import Receiver
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, get, post, sse_head
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Metrics
from proxy.runtime.figures import merged, snapshot


def figures(page):
    """Sample name and labels -> value."""
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def scrape(port, path=b"/metrics"):
    response = await ask(port, get(path))
    assert response.status == 200
    return figures(response.body)


# --- merging -----------------------------------------------------------------


def process(requests, lag, generation):
    metrics = Metrics(constant={"site": "a"})
    for _ in range(requests):
        metrics.request(("/v1/chat/completions", "false", "gpu", "200"), 20.0, 0.03)
    metrics.count("client_disconnects", "waiting")
    metrics.gauge("lag", "How late", (), lambda: [((), lag)], merge="max")
    metrics.gauge("generation", "Which", (), lambda: [((), generation)], merge="min")
    metrics.gauge("slots", "Taken", ("scope",), lambda: [(("global",), 2.0)])
    return metrics


def test_one_process_shows_what_it_counted():
    found = figures(merged([snapshot(process(3, 0.5, 7))]))

    labels = (("backend", "gpu"), ("path", "/v1/chat/completions"), ("site", "a"), ("status", "200"))
    labels = tuple(sorted((*labels, ("stream", "false"))))
    assert found["llmproxy_requests_total", labels] == 3
    assert found["llmproxy_latency_ms_sum", labels] == 60.0
    assert found["lag", (("site", "a"),)] == 0.5


def test_several_processes_are_added_up_where_a_sum_means_something():
    found = figures(merged([snapshot(process(3, 0.5, 7)), snapshot(process(4, 0.25, 8))]))

    by_name = {name: value for (name, _), value in found.items() if not name.endswith("_bucket")}
    assert by_name["llmproxy_requests_total"] == 7
    assert by_name["llmproxy_latency_ms_count"] == 7
    assert by_name["llmproxy_client_disconnects_total"] == 2
    assert by_name["slots"] == 4
    assert by_name["lag"] == 0.5
    assert by_name["generation"] == 7


def test_buckets_stay_cumulative_when_they_are_added_up():
    found = figures(merged([snapshot(process(3, 0, 1)), snapshot(process(4, 0, 1))]))

    buckets = {
        dict(key[1])["le"]: value for key, value in found.items() if key[0] == "llmproxy_latency_ms_bucket"
    }
    values = [buckets[bound] for bound in sorted(buckets, key=float)]
    assert values == sorted(values)
    assert values[0] == 0
    assert buckets["+Inf"] == 7


# --- a gateway's page --------------------------------------------------------

NAMES = (
    "llmproxy_access_lines_dropped_total",
    "llmproxy_build_info",
    "llmproxy_config_generation",
    "llmproxy_config_reload_timestamp_seconds",
    "llmproxy_connections",
    "llmproxy_event_loop_lag_seconds",
    "llmproxy_inflight",
    "llmproxy_limit_slots",
    "llmproxy_limit_subjects",
    "llmproxy_log_lines_dropped_total",
    "llmproxy_upstream_breaker_state",
    "llmproxy_upstream_in_flight",
    "llmproxy_upstream_up",
    "llmproxy_usage_dropped_total",
    "llmproxy_usage_spool_oldest_seconds",
    "llmproxy_usage_spool_pending",
    "llmproxy_webhook_failure_total",
    "llmproxy_webhook_success_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
)


def hook(port):
    return {
        "enabled": True,
        "reporters": [
            {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{port}/", "timeout": "1s"},
            {"name": "lines", "type": "log"},
        ],
    }


async def test_every_figure_is_there_from_the_beginning(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port, usage=hook(free_port())))

    found = await scrape(gateway.port)

    assert set(NAMES) <= {name for name, _ in found}
    assert found["llmproxy_upstream_up", (("backend", "backend-0"),)] == 1
    assert found["llmproxy_config_generation", ()] == 1
    assert 10e6 < found["process_resident_memory_bytes", ()] < 500e6
    assert found["process_open_fds", ()] == pytest.approx(gateway.open_files, abs=3)


async def test_gauges_follow_what_runs(new_gateway, upstream):
    limits = {"enabled": True, "global": {"enabled": True, "max_concurrent": 10}}
    gateway = new_gateway(settings(upstream.port, rate_limit=limits))
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=b'{"stream":true}'))
        await client.read_until(b"begun")
        during = await scrape(gateway.port)
        go_on.set()
        await client.read_until(b"0\r\n\r\n")
        after = await scrape(gateway.port)

    backend, scope = (("backend", "backend-0"),), (("scope", "global"),)
    assert during["llmproxy_upstream_in_flight", backend] == 1
    assert during["llmproxy_limit_slots", scope] == 1
    assert during["llmproxy_inflight", ()] == 2  # the scrape is one
    assert during["llmproxy_connections", ()] == 2
    assert after["llmproxy_upstream_in_flight", backend] == 0
    assert after["llmproxy_limit_slots", scope] == 0
    assert after["llmproxy_inflight", ()] == 1


async def test_retries_are_counted_by_what_went_before(new_gateway, upstream):
    async with ScriptedUpstream(replies(answer(status=b"503 Busy"))) as busy:
        retry = {
            "enabled": True,
            "max_retries": 3,
            "retry_on": [503],
            "initial_wait": "1ms",
            "max_wait": "2ms",
        }
        routing = {"retry": retry, "load_balance": "round_robin"}
        gateway = new_gateway(settings(busy.port, upstream.port, free_port(), routing=routing))

        for _ in range(3):
            assert (await ask(gateway.port, post())).status == 200

        found = await scrape(gateway.port)
    assert found["llmproxy_upstream_retries_total", (("reason", "503"),)] >= 1
    assert found["llmproxy_upstream_retries_total", (("reason", "connect_failed"),)] >= 1
    assert found["llmproxy_upstream_breaker_state", (("backend", "backend-2"),)] == 2


async def test_deliveries_are_counted_by_reporter(new_gateway, upstream):
    port = free_port()
    gateway = new_gateway(settings(upstream.port, usage=hook(port)))
    sink = (("sink", "hook"),)
    for _ in range(5):
        assert (await ask(gateway.port, post())).status == 200

    async def has_failed():
        return (await scrape(gateway.port))["llmproxy_webhook_failure_total", sink] >= 1

    await eventually(has_failed, "a failed delivery")

    async def waits():
        return (await scrape(gateway.port))["llmproxy_usage_spool_pending", sink] == 5

    await eventually(waits, "five records that wait")
    async with Receiver(port=port) as receiver:
        await receiver.wait_records(5)

        async def has_delivered():
            found = await scrape(gateway.port)
            return found["llmproxy_webhook_success_total", sink] == 5

        await eventually(has_delivered, "five delivered records")
        found = await scrape(gateway.port)
    assert found["llmproxy_usage_delivered_total", (("sink", "lines"),)] == 5
    assert ("llmproxy_webhook_success_total", (("sink", "lines"),)) not in found
    assert found["llmproxy_usage_records_total", ()] == 5


async def test_a_reload_shows_in_generation_and_time(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    before = await scrape(gateway.port)

    gateway.signal(signal.SIGHUP)

    async def is_second():
        return (await scrape(gateway.port))["llmproxy_config_generation", ()] == 2

    await eventually(is_second, "the second generation")
    name = "llmproxy_config_reload_timestamp_seconds", ()
    assert (await scrape(gateway.port))[name] >= before[name]


# --- requests that run for long ----------------------------------------------


async def test_a_request_that_runs_for_long_is_said_once_and_counted(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port, logging={"long_running_after": "300ms"}))
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(b"/v1/x", b'{"stream":true}', b"X-Request-Id: the-long-one"))
        await client.read_until(b"begun")

        async def is_counted():
            return (await scrape(gateway.port))["llmproxy_long_running_requests", ()] == 1

        await eventually(is_counted, "the alarm")
        assert gateway.output.count("a request runs for long") == 1
        await asyncio.sleep(2.2)  # two more looks
        assert await is_counted()
        go_on.set()
        await client.read_until(b"0\r\n\r\n")

        async def is_over():
            return (await scrape(gateway.port))["llmproxy_long_running_requests", ()] == 0

        await eventually(is_over, "the end of the alarm")
    (line,) = [line for line in gateway.output.splitlines() if "a request runs for long" in line]
    assert "the-long-one" in line
    assert "backend-0" in line
