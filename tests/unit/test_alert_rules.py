"""The alert rules as a whole: each has its page, its test and metrics that exist, and a healthy hour raises none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from settings import ROOT
from tests.metric_names import declared, named_in

RULES: Final = ROOT / "deploy/prometheus/rules.yml"
TESTS: Final = ROOT / "deploy/prometheus/rules_test.yml"
RUNBOOKS: Final = ROOT / "docs/runbooks"
MINUTES: Final = (5, 15, 30, 45, 60)

# One hour of a platform that is well: 20 feeds a second, 100 events a second, a click now and then refused.
HEALTHY: Final[dict[str, str]] = {
    'up{part="recommender"}': "1x240",
    'up{part="monitor"}': "1x240",
    'minimart_http_requests_total{service="recommender",route="/v1/recommendations",status="200"}': "0+300x240",
    'minimart_http_requests_total{service="collector",route="/v1/events",status="202"}': "0+1500x240",
    'minimart_http_requests_total{service="collector",route="/readyz",status="503"}': "0+3x240",
    'minimart_http_requests_total{service="recommender",route="/v1/recommendations",status="500"}': "0+1x240",
    'minimart_http_request_seconds_bucket{service="recommender",route="/v1/recommendations",le="0.1"}': "0+298x240",
    'minimart_http_request_seconds_bucket{service="recommender",route="/v1/recommendations",le="0.25"}': "0+300x240",
    'minimart_http_request_seconds_bucket{service="recommender",route="/v1/recommendations",le="+Inf"}': "0+300x240",
    'minimart_degraded_total{reason="rank_skipped"}': "0+2x240",
    'minimart_feature_rows_total{view="user_activity",state="present"}': "0+900x240",
    'minimart_feature_rows_total{view="user_activity",state="stale"}': "0+9x240",
    'minimart_consumer_lag_records{service="stream_features",topic="shop.clicks",partition="0"}': "300x240",
    'minimart_consumer_lag_records{service="analytics",topic="shop.clicks",partition="0"}': "6000x240",
    'minimart_feature_age_seconds{part="stream_features"}': "2x240",
    'minimart_events_total{service="collector",topic="shop.clicks",outcome="accepted"}': "0+1500x240",
    'minimart_events_total{service="collector",topic="shop.clicks",outcome="dead_letter"}': "0x240",
    'alertmanager_notifications_failed_total{integration="webhook"}': "0x240",
    'minimart_topic_newest_timestamp_seconds{topic="shop.clicks"}': "0+15x240",
    'minimart_topic_freshness_seconds{topic="shop.clicks"}': "900x240",
    'minimart_topic_hour_records{topic="shop.clicks"}': "3100x240",
    'minimart_topic_hour_expected_records{topic="shop.clicks"}': "3000x240",
    'minimart_topic_volume_level{topic="shop.clicks"}': "0x240",
    'minimart_contract_level{contract="shop.clicks",kind="quality"}': "0x240",
    'minimart_contract_level{contract="shop.clicks",kind="schema"}': "0x240",
    "minimart_incidents_open": "0x240",
    "minimart_textfiles_bad": "0x240",
    'minimart_drift_psi{model="ranker",feature="price"}': "0.12x240",
    'minimart_drift_level{model="ranker",kind="data"}': "0x240",
    'minimart_drift_level{model="ranker",kind="label"}': "-1x240",
    'minimart_drift_checked_timestamp_seconds{model="ranker"}': "0+15x240",
    'minimart_rollout_leader{part="controller"}': "1x240",
    'minimart_rollout_rollbacks_total{reason="ctr"}': "0x240",
    'minimart_rollout_guardrail_breaches_total{guardrail="ctr"}': "0x240",
    'minimart_rollout_retrains_total{outcome="ok"}': "0x120 1x120",
    'minimart_rollout_retrains_total{outcome="failed"}': "0x240",
    'minimart_rollout_gate_total{outcome="passed"}': "0x120 1x120",
    'minimart_rollout_gate_total{outcome="refused"}': "0x240",
    'minimart_rollout_gate_total{outcome="bypassed"}': "0x240",
    'minimart_bundles_refused_total{part="recommender"}': "0x240",
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS: Final = {rule["alert"]: rule for rule in rules()}


def test_no_two_alerts_have_the_same_name() -> None:
    assert len(ALERTS) == len(rules())


@pytest.mark.parametrize("name", list(ALERTS))
def test_each_alert_says_what_where_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("page", "warn")
    assert set(rule["annotations"]) == {"summary", "look", "runbook"}
    page = ROOT / rule["annotations"]["runbook"]
    assert page == RUNBOOKS / f"{name}.md"
    text = page.read_text()
    assert text.startswith(f"# {name} ({rule['labels']['severity']})\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Look", "## Do", "## It clears"]


def test_there_is_no_page_without_an_alert_and_the_list_names_all() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)
    listed = re.findall(r"\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text())
    assert {one[0]: one[2] for one in listed} == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


@pytest.mark.parametrize("name", list(ALERTS))
def test_each_alert_watches_metrics_that_exist(name: str) -> None:
    assert named_in(ALERTS[name]["expr"]) <= declared()


def test_each_alert_is_shown_firing_and_quiet() -> None:
    firing, quiet = set(), set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            (firing if case["exp_alerts"] else quiet).add(case["alertname"])
    assert firing == set(ALERTS)
    assert set(ALERTS) - quiet <= {"ErrorRateHigh", "AnswersDegraded", "ConsumerLagging"} | quiet


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus")
def test_a_healthy_hour_raises_no_alert(tmp_path: Path) -> None:
    watched = set.union(*(named_in(rule["expr"]) for rule in ALERTS.values()))
    assert watched <= named_in(" ".join(HEALTHY)), "an alert whose metrics the healthy hour lacks proves nothing"
    series = [{"series": name, "values": values} for name, values in HEALTHY.items()]
    quiet = [{"eval_time": f"{at}m", "alertname": name, "exp_alerts": []} for name in ALERTS for at in MINUTES]
    test = {"interval": "15s", "input_series": series, "alert_rule_test": quiet}
    file = tmp_path / "healthy.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
