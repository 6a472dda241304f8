"""The dashboards: overview first, then one for each subsystem. After a change: `make dashboards`."""

from __future__ import annotations

from typing import Final

from pipelines.dashboards.panels import Dashboard, Panel

FEED: Final = 'service="recommender", route="/v1/recommendations"'
WORK: Final = 'route!~"/readyz|/livez|/metrics"'
SHOWN: Final = "event_time >= $__fromTime AND event_time <= $__toTime AND hour >= toStartOfHour($__fromTime)"
NOTHING_WRONG: Final = "nothing of the kind has happened"
NO_ROLLOUT: Final = "no challenger has been tried"
NO_CHECK: Final = "no drift check has run"


def quantiles(metric: str, labels: str, window: str = "2m") -> tuple[tuple[str, str], ...]:
    """P50, P95 and P99 of a histogram, in seconds."""
    return tuple(
        (f"P{q}", f"histogram_quantile(0.{q}, sum by (le) (rate({metric}_bucket{{{labels}}}[{window}])))")
        for q in (50, 95, 99)
    )


OVERVIEW: Final = Dashboard(
    "minimart-overview",
    "Minimart · overview",
    "Is the shop well? Each number leads to the dashboard of its subsystem.",
    (
        (
            "Now",
            (
                Panel("Parts that do not answer", (("", "count(up == 0) or vector(0)"),), "stat", width=4, height=5, limits=(1, 2)),
                Panel("Alerts that fire", (("", 'count(ALERTS{alertstate="firing"}) or vector(0)'),), "stat", width=4, height=5, limits=(1, 3)),
                Panel("Open incidents", (("", "max(minimart_incidents_open)"),), "stat", width=4, height=5, limits=(1, 3)),
                Panel("Feeds a second", (("", f"sum(rate(minimart_http_requests_total{{{FEED}}}[1m]))"),), "stat", "reqps", 4, 5),
                Panel("P99 of a feed", quantiles("minimart_http_request_seconds", FEED)[2:], "stat", "s", 4, 5, limits=(0.15, 0.25)),
                Panel("Newest feature is old", (("", "max(minimart_feature_age_seconds)"),), "stat", "s", 4, 5, limits=(30, 60)),
            ),
        ),
        (
            "Shoppers",
            (
                Panel("Feeds and events a second", (
                    ("feeds", f"sum(rate(minimart_http_requests_total{{{FEED}}}[1m]))"),
                    ("events", 'sum(rate(minimart_events_total{service="collector", outcome="accepted"}[1m]))'),
                )),
                Panel("Latency of a feed", quantiles("minimart_http_request_seconds", FEED), unit="s", limits=(0.15, 0.25)),
                Panel("Failed and degraded share", (
                    ("failed", f'sum(rate(minimart_http_requests_total{{{WORK}, status=~"5.."}}[2m])) / sum(rate(minimart_http_requests_total{{{WORK}}}[2m])) or vector(0)'),
                    ("degraded", f"sum(rate(minimart_degraded_total[2m])) / sum(rate(minimart_http_requests_total{{{FEED}}}[2m])) or vector(0)"),
                ), unit="percentunit", limits=(0.01, 0.05)),
                Panel("Click-through by hour", (("", "SELECT hour AS time, sum(clicks) / greatest(sum(shown), 1) AS ctr FROM hourly_stats WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime GROUP BY hour ORDER BY hour"),), unit="percentunit", source="clickhouse"),
                Panel("Clicks and orders", (("", "SELECT hour AS time, sum(clicks) AS clicks, sum(orders) AS orders FROM hourly_stats WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime GROUP BY hour ORDER BY hour"),), source="clickhouse"),
                Panel("Models in use", (("", "max by (model, version) (minimart_model_version_info) == 1"),), "table"),
            ),
        ),
        (
            "What a person should look at",
            (
                Panel("Firing alerts", (("", 'ALERTS{alertstate="firing"}'),), "table", width=12, quiet=NOTHING_WRONG),
                Panel("State of the rollout", (("{{state}}", "minimart_rollout_state == 1"),), "table", width=6),
                Panel("Drift by kind (2 is drift)", (("{{kind}}", "max by (kind) (minimart_drift_level)"),), "bargauge", width=6, limits=(1, 2), quiet=NO_CHECK),
            ),
        ),
    ),
)  # fmt: skip

SERVING: Final = Dashboard(
    "minimart-serving",
    "Minimart · serving",
    "The recommender and its neighbours: how many, how fast, how whole.",
    (
        (
            "Requests",
            (
                Panel("Feeds a second by status", (("{{status}}", f"sum by (status) (rate(minimart_http_requests_total{{{FEED}}}[1m]))"),), unit="reqps"),
                Panel("Latency of a feed", quantiles("minimart_http_request_seconds", FEED), unit="s", limits=(0.15, 0.25)),
                Panel("Answered at this moment", (("{{service}}", "sum by (service) (minimart_http_in_flight)"),), about="Beyond MINIMART_RECOMMENDER_IN_FLIGHT the next ones are shed with 429; the autoscaler follows this number."),
            ),
        ),
        (
            "The funnel",
            (
                Panel("P99 by stage", (("{{stage}}", "histogram_quantile(0.99, sum by (le, stage) (rate(minimart_stage_seconds_bucket[2m])))"),), unit="s"),
                Panel("P50 by stage", (("{{stage}}", "histogram_quantile(0.5, sum by (le, stage) (rate(minimart_stage_seconds_bucket[2m])))"),), unit="s"),
                Panel("Degraded answers by reason", (("{{reason}}", "sum by (reason) (rate(minimart_degraded_total[1m]))"),), unit="reqps", quiet=NOTHING_WRONG),
                Panel("Calls that failed, by neighbour", (("{{service}} to {{neighbour}}", "sum by (service, neighbour) (rate(minimart_neighbour_errors_total[1m]))"),), unit="reqps", quiet=NOTHING_WRONG),
                Panel("Age of the item windows", (("", "max(minimart_item_snapshot_age_seconds)"),), unit="s"),
                Panel("Products on the shelf", (("", "max(minimart_shelf_items)"),)),
            ),
        ),
        (
            "Arms and model server",
            (
                Panel("Answers by arm", (("{{arm}}", "sum by (arm) (rate(minimart_arm_answers_total[1m]))"),), unit="reqps"),
                Panel("P99 by arm", (("{{arm}}", "histogram_quantile(0.99, sum by (le, arm) (rate(minimart_arm_seconds_bucket[2m])))"),), unit="s"),
                Panel("Latency by version, from the decision log", (("", f"SELECT ranker_version, count() AS feeds, round(quantile(0.5)(total_ms), 1) AS p50_ms, round(quantile(0.99)(total_ms), 1) AS p99_ms FROM decisions FINAL WHERE {SHOWN} GROUP BY ranker_version ORDER BY feeds DESC"),), "table", source="clickhouse"),
                Panel("Triton: inferences a second", (("{{model}} {{version}}", "sum by (model, version) (rate(nv_inference_request_success[1m]))"),), unit="reqps"),
                Panel("Triton: requests in a batch", (("{{model}}", "sum by (model) (rate(nv_inference_request_success[2m])) / sum by (model) (rate(nv_inference_exec_count[2m]))"),), about="Above 1: dynamic batching joins requests."),
                Panel("Triton: waiting and computing", (
                    ("{{model}} waits", "sum by (model) (rate(nv_inference_queue_duration_us[2m])) / sum by (model) (rate(nv_inference_exec_count[2m]))"),
                    ("{{model}} computes", "sum by (model) (rate(nv_inference_compute_infer_duration_us[2m])) / sum by (model) (rate(nv_inference_exec_count[2m]))"),
                ), unit="µs"),
            ),
        ),
    ),
)  # fmt: skip

FEATURES: Final = Dashboard(
    "minimart-features",
    "Minimart · features",
    "From a click to the feature that the next feed reads.",
    (
        (
            "Freshness",
            (
                Panel("Newest feature is old", (("", "max(minimart_feature_age_seconds)"),), "stat", "s", 6, 7, limits=(30, 60)),
                Panel("From arrival to readable", (
                    ("P50", "histogram_quantile(0.5, sum by (le) (rate(minimart_feature_freshness_seconds_bucket[2m])))"),
                    ("P95", "histogram_quantile(0.95, sum by (le) (rate(minimart_feature_freshness_seconds_bucket[2m])))"),
                ), unit="s", width=9),
                Panel("Records not yet consumed", (("{{topic}}", 'sum by (topic) (minimart_consumer_lag_records{service="stream_features"})'),), width=9, limits=(1000, 5000)),
            ),
        ),
        (
            "The stream worker",
            (
                Panel("Events a second by outcome", (("{{outcome}}", 'sum by (outcome) (rate(minimart_events_total{service="stream_features"}[1m]))'),), unit="eps"),
                Panel("Commits a second by result", (("{{result}}", "sum by (result) (rate(minimart_feature_commits_total[1m]))"),), unit="ops"),
                Panel("Rebuilds of the online store", (("", "sum(minimart_feature_rebuilds_total) or vector(0)"),), "stat"),
            ),
        ),
    ),
)  # fmt: skip

MODELS: Final = Dashboard(
    "minimart-models",
    "Minimart · models and rollout",
    "Which models answer whom, whether the world moved, and what the controller does about it.",
    (
        (
            "Versions",
            (
                Panel("Models by role", (("", "max by (role, model, version) (minimart_lineup_info) == 1"),), "table", width=10),
                Panel("Share of the canary", (("canary, percent", "max(minimart_canary_percent)"),), unit="percent", width=7),
                Panel("Bundles loaded and refused", (
                    ("loaded", "sum(minimart_bundles_loaded_total)"), ("refused", "sum(minimart_bundles_refused_total)"),
                ), width=7),
            ),
        ),
        (
            "Rollout",
            (
                Panel("State", (("{{state}}", "minimart_rollout_state == 1"),), "table", width=6),
                Panel("Transitions by new state", (("{{to}}", "sum by (to) (minimart_rollout_transitions_total)"),), width=9),
                Panel("Retraining, gate, rollbacks", (
                    ("retraining {{outcome}}", "sum by (outcome) (minimart_rollout_retrains_total)"),
                    ("gate {{outcome}}", "sum by (outcome) (minimart_rollout_gate_total)"),
                    ("rollbacks", "sum(minimart_rollout_rollbacks_total)"),
                ), width=9),
                Panel("Click-through by arm", (("", "SELECT arm, sum(h.shown) AS shown, sum(h.clicks) AS clicks, round(sum(h.clicks) / greatest(sum(h.shown), 1), 4) AS ctr FROM hourly_stats AS h WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime GROUP BY arm ORDER BY arm"),), "table", source="clickhouse"),
                Panel("Shadow: agreement and latency", (("", f"SELECT ranker_version, count() AS scored, round(avg(overlap_at_k), 3) AS overlap, round(quantile(0.99)(total_ms), 1) AS p99_ms, countIf(error != '') AS errors FROM shadow FINAL WHERE {SHOWN} GROUP BY ranker_version ORDER BY scored DESC"),), "table", source="clickhouse", quiet=NO_ROLLOUT),
                Panel("History", (("", "SELECT event_time, from_state, to_state, reason, actor FROM rollouts FINAL WHERE event_time >= $__fromTime AND event_time <= $__toTime ORDER BY event_ms DESC LIMIT 100"),), "table", source="clickhouse", quiet=NO_ROLLOUT),
            ),
        ),
        (
            "Drift",
            (
                Panel("Level by kind (2 is drift)", (("{{kind}}", "max by (kind) (minimart_drift_level)"),), "bargauge", width=6, limits=(1, 2), quiet=NO_CHECK),
                Panel("PSI by feature", (("{{feature}}", "max by (feature) (minimart_drift_psi)"),), width=10, limits=(0.1, 0.25), quiet=NO_CHECK),
                Panel("Click rate, estimated without labels and as it came", (("{{kind}}", "max by (kind) (minimart_drift_click_rate)"),), unit="percentunit", quiet=NO_CHECK, about="The estimate is there at once, the labels come later: where the two part, the model no longer knows its shoppers."),
                Panel("Features that moved most", (("", "SELECT feature, argMax(psi, at_ms) AS psi, argMax(null_share, at_ms) AS null_share, argMax(level, at_ms) AS level FROM drift_features WHERE at_ms >= toUnixTimestamp($__fromTime) * 1000 AND at_ms <= toUnixTimestamp($__toTime) * 1000 GROUP BY feature ORDER BY psi DESC LIMIT 20"),), "table", source="clickhouse", quiet=NO_CHECK),
            ),
        ),
    ),
)  # fmt: skip

EVENTS: Final = Dashboard(
    "minimart-events",
    "Minimart · events and decision log",
    "What shoppers did and what they were shown, on its way through Kafka into the lake and the analytical store.",
    (
        (
            "In",
            (
                Panel("Events accepted a second, by topic", (("{{topic}}", 'sum by (topic) (rate(minimart_events_total{service="collector", outcome="accepted"}[1m]))'),), unit="eps"),
                Panel("Events by service and outcome", (("{{service}} {{outcome}}", "sum by (service, outcome) (rate(minimart_events_total[1m]))"),), unit="eps"),
                Panel("Waiting for Kafka", (
                    ("events", "sum(minimart_collector_spooled_events)"), ("decisions", "sum(minimart_decisions_waiting)"),
                )),
                Panel("Decisions by what became of them", (("{{outcome}}", "sum by (outcome) (rate(minimart_decisions_total[1m]))"),), unit="eps"),
                Panel("Records not yet consumed", (("{{service}}", "sum by (service) (minimart_consumer_lag_records)"),), limits=(5000, 20000)),
                Panel("Dead letters", (("{{service}} {{topic}}", 'sum by (service, topic) (minimart_events_total{outcome="dead_letter"})'),), quiet=NOTHING_WRONG),
            ),
        ),
        (
            "The analytical store",
            (
                Panel("Rows a second by table", (("{{table}}", "sum by (table) (rate(minimart_analytics_rows_total[1m]))"),), unit="eps"),
                Panel("Newest row is old", (("{{table}}", "max by (table) (minimart_analytics_freshness_seconds)"),), unit="s"),
                Panel("Rows by table, in the time shown", (("", " UNION ALL ".join(
                    f"SELECT '{table}' AS name, count() AS rows, max(event_time) AS newest FROM {table} FINAL WHERE {SHOWN}"
                    for table in ("decisions", "impressions", "clicks", "carts", "orders")
                )),), "table", source="clickhouse"),
                Panel("Decisions a minute by arm", (("", f"SELECT toStartOfMinute(event_time) AS time, arm, count() AS decisions FROM decisions FINAL WHERE {SHOWN} GROUP BY time, arm ORDER BY time"),), source="clickhouse"),
                Panel("Degraded by reason, from the log", (("", f"SELECT reason, count() AS answers FROM decisions FINAL ARRAY JOIN degraded AS reason WHERE {SHOWN} GROUP BY reason ORDER BY answers DESC"),), "table", source="clickhouse", quiet=NOTHING_WRONG),
                Panel("By hour and version", (("", "SELECT hour, ranker_version, sum(requests) AS feeds, sum(clicks) AS clicks, sum(orders) AS orders, round(sum(revenue_cents) / 100, 2) AS revenue FROM hourly_stats WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime GROUP BY hour, ranker_version ORDER BY hour DESC"),), "table", source="clickhouse"),
            ),
        ),
    ),
)  # fmt: skip

INFRASTRUCTURE: Final = Dashboard(
    "minimart-infrastructure",
    "Minimart · infrastructure",
    "The processes: up, memory, processor, files, and the watchers themselves.",
    (
        (
            "Parts",
            (
                Panel("Up", (("{{part}}", "min by (part) (up)"),), "bargauge", width=8, height=10),
                Panel("Memory", (("{{part}}", "sum by (part) (process_resident_memory_bytes)"),), unit="bytes", height=10),
                Panel("Processor seconds a second", (("{{part}}", "sum by (part) (rate(process_cpu_seconds_total[1m]))"),), height=10),
                Panel("Open files", (("{{part}}", "sum by (part) (process_open_fds)"),)),
                Panel("Requests a second by service", (("{{service}}", f"sum by (service) (rate(minimart_http_requests_total{{{WORK}}}[1m]))"),), unit="reqps"),
                Panel("P99 by service", (("{{service}}", f"histogram_quantile(0.99, sum by (le, service) (rate(minimart_http_request_seconds_bucket{{{WORK}}}[2m])))"),), unit="s"),
            ),
        ),
        (
            "The watchers",
            (
                Panel("Seconds that a scrape takes", (("{{part}}", "max by (part) (scrape_duration_seconds)"),), unit="s"),
                Panel("Notifications of Alertmanager", (
                    ("sent", "sum(alertmanager_notifications_total)"),
                    ("failed", "sum(alertmanager_notifications_failed_total)"),
                )),
                Panel("Series in Prometheus", (("", "max(prometheus_tsdb_head_series)"),)),
                Panel("Alerts told to the monitor", (("{{outcome}}", "sum by (outcome) (minimart_alerts_told_total)"),)),
                Panel("Age of the files of metrics", (("{{file}}", "max by (file) (minimart_textfile_age_seconds)"),), unit="s", quiet=NO_CHECK),
                Panel("Simulator: sessions and clicks", (
                    ("sessions", "sum(minimart_simulator_sessions)"),
                    ("clicks a second", "sum(rate(minimart_simulator_clicks_total[1m]))"),
                )),
            ),
        ),
    ),
)  # fmt: skip

DASHBOARDS: Final = (OVERVIEW, SERVING, FEATURES, MODELS, EVENTS, INFRASTRUCTURE)
