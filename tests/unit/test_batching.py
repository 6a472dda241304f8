"""The bench of Triton's batching: what it configures, what it concludes from rates."""

from __future__ import annotations

from typing import Any

from bench import batching


def row(setting: str, rate: float, p99: float, failed: int = 0) -> dict[str, Any]:
    return {"setting": setting, "rate": rate, "throughput": rate, "failed": failed, "latency_ms": {"p99": p99}}


def test_a_setting_changes_one_thing_in_what_is_shipped() -> None:
    shipped = (batching.ROOT / "deploy" / "triton" / batching.MODEL / "config.pbtxt").read_text()
    assert batching.configured(200) == shipped
    assert "max_queue_delay_microseconds: 5000\n" in batching.configured(5_000)
    assert "dynamic_batching" not in batching.configured(None)
    assert "max_batch_size: 64" in batching.configured(None)


def test_throughput_is_compared_at_the_same_latency() -> None:
    rows = [row(batching.OFF, 100, 10), row(batching.OFF, 200, 14), row(batching.OFF, 300, 16),
            row(batching.OFF, 400, 200),
            row("200 us", 100, 11), row("200 us", 600, 15), row("200 us", 900, 90), row("200 us", 1200, 5, failed=1)]
    off, on = batching.verdicts(rows)
    assert (off["p99_limit_ms"], off["throughput_at_limit"], off["throughput"]) == (15.0, 200, 300)
    assert (on["throughput_at_limit"], on["throughput_at_limit_times"]) == (600, 3.0)
    assert (on["throughput"], on["throughput_times"]) == (900, 3.0), "a rate at which requests fail counts for nothing"


def test_a_setting_that_never_keeps_up_is_said_to_be_worth_nothing() -> None:
    found = batching.verdicts([row(batching.OFF, 100, 10), row("0 us", 100, 500)])
    assert (found[1]["throughput"], found[1]["throughput_times"]) == (0.0, 0.0)
