"""The catalogue's rows of cost: time, memory, size, arithmetic."""

from __future__ import annotations

from srbench.metrics.info import MetricInfo

COSTS = (
    MetricInfo("total_time_s", "total\ntime s", "total time", False, "cost", unit="s", digits=1, priority=11),
    MetricInfo("latency_ms", "ms /\nimage", "latency", False, "cost", unit="ms", digits=2, priority=5, headline=True),
    MetricInfo(
        "latency_p10_ms",
        "ms\np10 / p90",
        "10th percentile of the latency",
        False,
        "cost",
        unit="ms",
        digits=2,
        priority=12,
        second="latency_p90_ms",
    ),
    MetricInfo("latency_p90_ms", "p90", "90th percentile of the latency", False, "cost", unit="ms", digits=2),
    MetricInfo("images_per_s", "images\n/ s", "images a second", True, "cost", style="significant", priority=14),
    MetricInfo("parameters", "para\u00ad\nmeters", "parameters", False, "cost", style="scaled", priority=15),
    MetricInfo("macs", "MACs /\nimage", "multiply-accumulates", False, "cost", style="scaled", priority=16),
    MetricInfo(
        *("total_macs", "MACs\nin all", "multiply-accumulates of method and network", False, "cost"),
        style="scaled",
        priority=9,
    ),
    MetricInfo("peak_memory_mb", "peak\nMB", "peak memory", False, "cost", unit="MB", style="significant", priority=17),
)
