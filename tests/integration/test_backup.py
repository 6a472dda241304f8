"""MLflow's store is saved while it is written to, destroyed, and put back: runs, versions, artifacts are equal."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from adapters.errors import BadInput, Corrupt
from pipelines.backup import inventory
from pipelines.backup import manifest as files
from pipelines.backup.__main__ import drill, restore, save
from pipelines.backup.native import NativeStore
from settings import Settings


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db", f"sqlite:///{home}/mlflow/mlflow.db")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow has two runs with artifacts, two versions of a model, and an alias."""
    home = tmp_path_factory.mktemp("original")
    (home / "mlflow").mkdir()
    client = client_of(home)
    experiment = client.create_experiment("train_ranker", artifact_location=f"{home}/mlflow/artifacts/train_ranker")
    client.create_registered_model("ranker")
    for number in range(2):
        run = client.create_run(experiment, tags={"git_commit": f"c{number}"})
        client.log_param(run.info.run_id, "trees", 300 + number)
        client.log_metric(run.info.run_id, "ndcg", 0.5 + number / 10)
        client.log_text(run.info.run_id, f"model {number}" * 1000, "model/model.txt")
        client.set_terminated(run.info.run_id)
        client.create_model_version("ranker", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("ranker", "champion", "2")
    return home


@pytest.fixture
def store(original: Path, tmp_path: Path) -> NativeStore:
    shutil.copytree(original / "mlflow", tmp_path / "home" / "mlflow")
    return NativeStore(Settings(home=tmp_path / "home", port_offset=29_000))


TABLES = {
    "run": "SELECT run_uuid, status, artifact_uri FROM runs",
    "param": "SELECT run_uuid || key, value FROM params",
    "metric": "SELECT run_uuid || key, value FROM metrics",
    "version": "SELECT name || version, source, run_id FROM model_versions",
    "alias": "SELECT name || '@' || alias, version FROM registered_model_aliases",
}


def known(store: NativeStore) -> dict[str, Any]:
    """What the database says, over a new connection: MLflow's client keeps one to the file that was there before."""
    if not (store.folder / "mlflow.db").exists():
        return {}
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database:
        return {f"{kind} {row[0]}": row[1:] for kind, sql in TABLES.items() for row in database.execute(sql)}


def test_the_drill_destroys_restores_and_finds_everything_equal(
    store: NativeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "take", lambda url: known(store))
    said: list[str] = []
    assert drill(store, tmp_path / "backups", said.append) == []
    assert "destroyed: no table and no artifact is left" in said
    assert known(store)["alias ranker@champion"] == (2,)
    assert len(store.artifacts()) == 2


def test_a_restore_keeps_what_was_there_before(store: NativeStore, tmp_path: Path) -> None:
    backup = save(store, tmp_path / "backups")
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE registered_model_aliases SET version = 1")
    said = restore(store, backup)
    assert known(store)["alias ranker@champion"] == (2,)
    aside = Path(said.rsplit(" ", 1)[1])
    with sqlite3.connect(aside / "mlflow.db") as before:
        assert before.execute("SELECT version FROM registered_model_aliases").fetchall() == [(1,)]


def test_a_backup_taken_while_runs_are_written_is_a_whole_database(store: NativeStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with sqlite3.connect(store.folder / "mlflow.db", timeout=30) as database:
            number = 0
            while not stop.is_set():
                number += 1
                with database:  # each pair in one transaction: a backup has both or neither
                    database.execute("INSERT INTO experiment_tags VALUES (?, 'x', 0)", (f"a{number}",))
                    database.execute("INSERT INTO experiment_tags VALUES (?, 'x', 0)", (f"b{number}",))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backups = [save(store, tmp_path / "backups") for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    for backup in backups:
        files.check(backup, "native")
        with sqlite3.connect(backup / "mlflow.db") as database:
            keys = {row[0] for row in database.execute("SELECT key FROM experiment_tags WHERE value = 'x'")}
        assert {key[1:] for key in keys if key[0] == "a"} == {key[1:] for key in keys if key[0] == "b"}


@contextmanager
def unchanged(store: NativeStore) -> Iterator[None]:
    before = files.digests(store.folder)
    yield
    assert files.digests(store.folder) == before


@pytest.mark.parametrize("file", ["mlflow.db", "artifacts.tar"])
@pytest.mark.parametrize("how", ["torn", "changed", "missing"])
def test_a_backup_that_is_not_whole_is_refused_and_nothing_changes(
    store: NativeStore, tmp_path: Path, file: str, how: str
) -> None:
    backup = save(store, tmp_path / "backups")
    content = (backup / file).read_bytes()
    if how == "missing":
        (backup / file).unlink()
    else:
        (backup / file).write_bytes(content[: len(content) // 2] if how == "torn" else b"x" + content[1:])
    with unchanged(store), pytest.raises(Corrupt, match="nothing was restored"):
        restore(store, backup)


def test_what_is_no_backup_or_one_of_another_stack_is_refused(store: NativeStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no backup"):
        restore(store, tmp_path)
    backup = save(store, tmp_path / "backups")
    manifest = json.loads((backup / files.MANIFEST).read_text())
    (backup / files.MANIFEST).write_text(json.dumps(manifest | {"stack": "compose"}))
    with pytest.raises(BadInput, match="STACK=compose"):
        restore(store, backup)


def test_a_save_that_fails_leaves_no_backup(store: NativeStore, tmp_path: Path) -> None:
    (store.folder / "mlflow.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Corrupt):
        save(store, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_the_inventory_is_what_mlflows_server_says(mlflow_uri: str) -> None:
    client = MlflowClient(mlflow_uri)
    run = client.create_run(client.create_experiment("inventory"))
    client.log_param(run.info.run_id, "trees", 300)
    client.set_terminated(run.info.run_id)
    going_on = client.create_run(run.info.experiment_id)
    client.create_registered_model("inventory-model")
    client.create_model_version("inventory-model", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("inventory-model", "champion", "1")
    found = inventory.take(mlflow_uri)
    assert found[f"run {run.info.run_id}"]["params"] == {"trees": "300"}
    assert f"run {going_on.info.run_id}" not in found
    assert found["version inventory-model/1"]["run"] == run.info.run_id
    assert found["alias inventory-model@champion"] == "1"
