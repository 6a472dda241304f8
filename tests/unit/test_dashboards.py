"""Grafana's files: written from pipelines/dashboards, complete, and naming only metrics and tables that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from pipelines.dashboards.__main__ import FOLDER, files, write
from pipelines.dashboards.contents import DASHBOARDS
from pipelines.dashboards.panels import COLUMNS, UIDS, Dashboard
from settings import ROOT
from tests.metric_names import declared, named_in

PROVISIONING = ROOT / "deploy/grafana/provisioning"
EACH = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)


def test_the_files_are_those_of_the_code() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert there == files(), "run `make dashboards`"


def test_a_dashboard_that_is_no_more_is_removed(tmp_path) -> None:
    (tmp_path / "old.json").write_text("{}")
    assert write(tmp_path) == len(DASHBOARDS)
    assert not (tmp_path / "old.json").exists()


def test_the_overview_comes_first_and_names_are_unique() -> None:
    assert DASHBOARDS[0].uid == "minimart-overview"
    assert len({one.uid for one in DASHBOARDS}) == len({one.title for one in DASHBOARDS}) == len(DASHBOARDS)


@EACH
def test_every_metric_of_a_panel_is_declared_in_the_code(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for _, query in panel.queries:
            if panel.source == "prometheus":
                assert named_in(query)
                assert named_in(query) <= declared(), panel.title


@EACH
def test_every_table_of_a_panel_is_made_by_the_sql_files(dashboard: Dashboard) -> None:
    sql = "".join(path.read_text() for path in (ROOT / "deploy/clickhouse").glob("*.sql"))
    made = set(re.findall(r"CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW|MATERIALIZED VIEW) (\w+)", sql))
    for panel in dashboard.panels:
        for _, query in panel.queries:
            if panel.source == "clickhouse":
                assert set(re.findall(r"FROM (\w+)", query)) <= made, panel.title


@EACH
def test_panels_fill_the_grid_without_overlap(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    document: dict[str, Any] = json.loads((FOLDER / f"{dashboard.uid}.json").read_text())
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_every_data_source_of_a_panel_is_provisioned() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources/minimart.yml").read_text())["datasources"]
    assert {(one["type"], one["uid"]) for one in sources} >= {(one["type"], one["uid"]) for one in UIDS.values()}
    links = {link["url"] for name in files() for link in json.loads(files()[name])["links"] if link["type"] == "link"}
    named = {re.search(r"=(\w+)$", url).group(1) for url in links}  # type: ignore[union-attr]
    assert named <= {one["name"] for one in sources}


def test_no_password_stands_in_the_provisioning() -> None:
    for source in yaml.safe_load((PROVISIONING / "datasources/minimart.yml").read_text())["datasources"]:
        assert all(value.startswith("$__file{") for value in source.get("secureJsonData", {}).values())
