"""The protocols against small examples worked out by hand, and the files that an evaluation takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.errors import BadInput
from models.recommenders.base import Catalogue, Sequences
from pipelines.evaluate.dataset import Dataset, load
from pipelines.evaluate.protocols import PROTOCOLS, leave_one_out, seen, split, strong_generalisation, temporal


def dataset(rows: list[list[int]], times: list[list[int]] | None = None, items: int = 50) -> Dataset:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    flat = np.array([item for row in rows for item in row], dtype=np.int64)
    when = None if times is None else np.array([t for row in times for t in row], dtype=np.int64)
    return Dataset(Sequences(starts, flat, when), Catalogue(items), {}, "0")


def rows_of(sequences: Sequences) -> list[list[int]]:
    return [sequences.of(i).tolist() for i in range(len(sequences))]


def test_leave_one_out_by_hand() -> None:
    found = leave_one_out(dataset([[1, 2, 3, 4], [5, 6], [7, 8, 9]]), 7)
    assert rows_of(found.validation.learn) == [[1, 2], [5, 6], [7]]  # too short to be asked: learned from whole
    assert rows_of(found.validation.questions.histories.sequences) == [[1, 2], [7]]
    assert rows_of(found.validation.questions.relevant) == [[3], [8]]
    assert rows_of(found.test.learn) == [[1, 2, 3], [5, 6], [7, 8]]  # the validation transition
    assert rows_of(found.test.questions.histories.sequences) == [[1, 2, 3], [7, 8]]
    assert rows_of(found.test.questions.relevant) == [[4], [9]]
    assert found.test.questions.histories.users.tolist() == [0, 2]
    assert found.facts["users_too_short"] == 1


def test_temporal_by_hand() -> None:
    rows = [[*range(16)], [20, 21, 22, 20]]
    times = [[*range(16)], [16, 17, 18, 19]]
    found = temporal(dataset(rows, times), 7)  # 20 interactions: validation from 15, test from 17
    assert rows_of(found.validation.learn) == [[*range(15)], []]
    assert rows_of(found.test.learn) == [[*range(16)], [20]]
    assert rows_of(found.validation.questions.relevant) == [[15], [20]]
    assert found.validation.questions.histories.users.tolist() == [0, -1]  # the second user is new in that window
    assert rows_of(found.test.questions.relevant) == [[21, 22, 20]]
    assert rows_of(found.test.questions.histories.sequences) == [[20]]
    assert seen(found.test.questions).tolist() == [False, False, True]
    times_learned = found.test.learn.time_ms
    assert times_learned is not None
    assert times_learned.max() < found.facts["test_from_ms"]


def test_strong_generalisation_never_learns_whom_it_asks() -> None:
    rows = [[user * 6 + step for step in range(6)] for user in range(40)]
    found = strong_generalisation(dataset(rows, items=240), 7)
    tested = {item for row in rows_of(found.test.questions.relevant) for item in row}
    known = {item for row in rows_of(found.test.questions.histories.sequences) for item in row}
    validated = {item for row in rows_of(found.validation.questions.relevant) for item in row}
    learned = {item for row in rows_of(found.test.learn) for item in row}
    assert (len(found.test.questions), len(tested), len(known)) == (4, 4, 20)
    assert not learned & (tested | known)
    assert validated <= learned
    assert not validated & {item for row in rows_of(found.validation.learn) for item in row}
    assert set(found.test.questions.histories.users.tolist()) == {-1}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_too_few_users_are_refused(name: str) -> None:
    times = [[1, 2, 3]] * 3
    with pytest.raises(BadInput, match=f"{name}: .* can be asked"):
        split(name, dataset([[1, 2, 3]] * 3, times), 7)


def test_a_text_file_of_sequences(tmp_path: Path) -> None:
    path = tmp_path / "sequences.txt"
    path.write_text("a 3 1 1 2\n\nb\tx 3 x\n")
    data = load(path)
    assert data.catalogue.n_items == 4
    assert [len(row) for row in rows_of(data.sequences)] == [3, 3]
    assert data.notes["immediate_repetitions_dropped"] == 1
    assert data.notes["repeated_pairs_kept"] == 1
    assert not data.has_times
    with pytest.raises(BadInput, match=r"no times; use --protocol leave_one_out"):
        temporal(data, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no lines"),
        ("a 1 2\na 3 4\n", "line 2 is about user 'a' as line 1 was; put all items of a user on one line"),
        ("a 1 2\nb\n", "line 2 is 'b'; a line is `user item item ...`"),
        ("user_id,item_id,time\n1,2,3\n", "belongs into a folder as events.csv"),
        ("a \xff", "not UTF-8 text"),
    ],
)
def test_a_wrong_text_file_is_refused_with_the_fix(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "sequences.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as found:
        load(path)
    assert says in found.value.detail


def test_a_folder_in_the_import_contract(tmp_path: Path) -> None:
    events = [f"u{u},i{(u + step) % 30},{1_600_000_000 + 100 * (5 - step)}" for u in range(3) for step in range(5)]
    (tmp_path / "events.csv").write_text("user_id,item_id,time\n" + "\n".join([*events, "u0,i0,yesterday"]) + "\n")
    items = [f"i{i},Thing {i},kind {i % 3},{i}.50" for i in range(30)]
    (tmp_path / "items.csv").write_text("item_id,title,category,price\n" + "\n".join(items) + "\n")
    data = load(tmp_path)
    assert data.catalogue.n_items == 30
    assert data.catalogue.text is not None
    assert data.catalogue.log_price is not None
    names = sorted(f"i{i}" for i in range(30))
    assert [names[row] for row in data.sequences.of(1)] == ["i5", "i4", "i3", "i2", "i1"]  # by time, not by row
    assert data.notes["quarantined"] == 1
    assert data.has_times


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file or folder"):
        load(tmp_path / "nothing")
