"""The registry behaves the same on its store and on a server: runs, artifacts, versions, aliases, and no pickles."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import Misconfigured, NotFound, Unavailable
from adapters.registry import MlflowRegistry, open_registry

TAGS = {"data_version": "d", "git_commit": "c", "manifest_sha256": "m", "gate": "passed"}


@pytest.fixture(scope="module", params=["store", "server"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    if request.param == "server":
        return open_registry(request.getfixturevalue("mlflow_uri"), Path("unused"))
    return open_registry("", tmp_path_factory.mktemp("home"))


def new_version(registry: MlflowRegistry, model: str) -> int:
    with registry.run("train_ranker", {"trees": 3}, {"stage": "production"}) as run:
        run.metrics({"ndcg_at_10": 0.1}, step=1)
        run.metrics({"ndcg_at_10": 0.2}, step=2)
        run.file("model.txt", b"tree", folder="model")
        run.file("curves.png", b"png")
        return registry.register(model, run)


def test_versions_and_aliases(registry: MlflowRegistry) -> None:
    with pytest.raises(NotFound, match="no champion"):
        registry.champion("nobody")
    first = new_version(registry, "ranker")
    registry.promote("ranker", first, TAGS)
    second = new_version(registry, "ranker")
    assert second == first + 1
    registry.promote("ranker", second, TAGS)
    registry.promote("ranker", second, TAGS)
    assert registry.champion("ranker") == (second, TAGS)
    aliases = registry._client.get_registered_model("ranker").aliases
    assert {name: int(version) for name, version in aliases.items()} == {"champion": second, "previous": first}


def test_a_run_keeps_everything(registry: MlflowRegistry) -> None:
    with registry.run("evaluate", {"shoppers": 5}, {"git_commit": "abc"}) as run:
        run.metrics({"funnel.ndcg_at_10": 0.1}, step=1)
        run.file("evaluation.json", b"{}")
    found = registry._client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"shoppers": "5"}
    assert found.data.tags["git_commit"] == "abc"
    assert [m.value for m in registry._client.get_metric_history(run.run_id, "funnel.ndcg_at_10")] == [0.1]
    assert [f.path for f in registry._client.list_artifacts(run.run_id)] == ["evaluation.json"]


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.joblib", "model"])
def test_a_pickle_is_never_kept(registry: MlflowRegistry, name: str) -> None:
    with pytest.raises(Misconfigured, match="never a pickle"), registry.run("train", {}, {}) as run:
        run.file(name, b"x")
    assert registry._client.get_run(run.run_id).info.status == "FAILED"


def test_nobody_there() -> None:
    with pytest.raises(Unavailable):
        open_registry("http://127.0.0.1:9", Path("unused")).champion("ranker")
