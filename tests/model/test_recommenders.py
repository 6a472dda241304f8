"""Every retrieval model behind the base: one suite over all of them, on a planted toy, and what each does by itself."""

from __future__ import annotations

import numpy as np
import pytest

from models.recommenders import linear
from models.recommenders.base import Catalogue, Histories, Recommender, Sequences, Training
from models.recommenders.blend import Blend, Examples, learn, nearness, tamed, top_columns, uniform
from models.recommenders.content import vectors
from models.recommenders.family import MODELS
from models.recommenders.linear import LinearAutoencoder, most_items
from models.recommenders.self_attention import _chunks, _newest
from models.recommenders.transitions import Transitions
from models.recommenders.two_tower import _examples
from pipelines.evaluate.measure import value
from pipelines.evaluate.protocols import Questions
from tests.model.planted import EACH, ITEMS, walks

ROUNDS = {"two-tower": 4, "self-attention": 8}
NEW = ITEMS - 1  # held out of what is learned: an item nobody has touched


def sequences_of(rows: list[list[int]], times: bool = False) -> Sequences:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.array([item for row in rows for item in row], dtype=np.int64)
    return Sequences(starts, items, np.arange(len(items)) * 1000 if times else None)


CATALOGUE = Catalogue(ITEMS, np.arange(ITEMS) // EACH, text=[f"chain {i // EACH} thing" for i in range(ITEMS)])


class Toy:
    def __init__(self) -> None:
        rows = [[item for item in row if item != NEW] for row in walks()]
        rows = [row for row in rows if len(row) >= 3]
        learned = sequences_of([row[:-1] for row in rows])
        self.training = Training(learned, CATALOGUE, threads=1)
        self.questions = Questions(
            Histories(learned, np.arange(len(rows))), sequences_of([row[-1:] for row in rows])
        )

    def fitted(self, name: str) -> Recommender:
        model = MODELS[name](**({"dim": 32} if name in ("ials", "self-attention") else {}))
        model.fit(self.training)
        for _ in range(ROUNDS.get(name, 0)):
            assert np.isfinite(model.round())
        return model

    def ndcg(self, model: Recommender) -> float:
        return float(value(model.score, self.questions, ITEMS, mask=True, k=10).mean())


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def models(toy: Toy) -> dict[str, Recommender]:
    return {name: toy.fitted(name) for name in MODELS if name != "ials"} | {"ials": toy.fitted("ials")}


@pytest.mark.parametrize("name", [name for name in MODELS if name != "popularity"])
def test_it_beats_popularity_by_far(name: str, toy: Toy, models: dict[str, Recommender]) -> None:
    assert toy.ndcg(models[name]) > 1.5 * toy.ndcg(models["popularity"])


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_finite_and_do_not_depend_on_the_batch(
    name: str, toy: Toy, models: dict[str, Recommender]
) -> None:
    asked = toy.questions.histories
    together = models[name].score(asked.part(slice(0, 12)))
    assert together.shape == (12, ITEMS)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    alone = np.concatenate([models[name].score(asked.part(slice(i, i + 1))) for i in range(12)])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_user_without_a_history_is_answered(name: str, models: dict[str, Recommender]) -> None:
    nobody = Histories(sequences_of([[], [0, 1]]), np.array([-1, -1]))
    assert np.isfinite(models[name].score(nobody)).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_model(name: str, toy: Toy, models: dict[str, Recommender]) -> None:
    asked = toy.questions.histories.part(slice(0, 8))
    np.testing.assert_array_equal(toy.fitted(name).score(asked), models[name].score(asked))


@pytest.mark.parametrize("name", MODELS)
def test_options_are_checked(name: str) -> None:
    assert set(MODELS[name].space) <= set(MODELS[name].default)
    for option, values in MODELS[name].space.items():
        assert MODELS[name].default[option] in values
    with pytest.raises(ValueError, match="'wrong' is no option"):
        MODELS[name](wrong=1)


@pytest.mark.parametrize("name", ["popularity", "co-occurrence", "ease", "ials"])
def test_an_item_that_nobody_touched_is_not_invented(name: str, toy: Toy, models: dict[str, Recommender]) -> None:
    scores = models[name].score(toy.questions.histories)
    assert np.all(np.count_nonzero(scores > scores[:, [NEW]], axis=1) >= 10)


@pytest.mark.parametrize("name", ["content", "self-attention"])
def test_content_knows_an_item_that_nobody_touched(name: str, models: dict[str, Recommender]) -> None:
    chain = np.arange(ITEMS - EACH, ITEMS - 1)
    scores = models[name].score(Histories(sequences_of([chain[-4:].tolist()]), np.array([-1])))[0]
    assert np.mean(scores[NEW] > scores[: ITEMS - EACH]) > 0.9


def test_transitions_by_hand() -> None:
    config = {"window": 2, "gap_decay": 0.5, "backward": 0.0, "activity": 0.0, "source": 0.0, "target": 0.0,
              "shrink": 1.0, "recency": 0.5, "popular": 0.0}  # fmt: skip
    model = Transitions(**config)
    model.fit(Training(sequences_of([[0, 1, 2], [0, 2]]), Catalogue(4)))
    scores = model.score(Histories(sequences_of([[0], [0, 1]]), np.array([-1, -1])))
    np.testing.assert_allclose(scores[0], [0, 1, 1.5, 0])  # 0->1 once; 0->2 at gap 2 (a half) and at gap 1
    np.testing.assert_allclose(scores[1], [0, 0.5, 1 + 0.75, 0])  # the newest, 1, whole; the older, 0, half
    both = Transitions(**{**config, "backward": 1.0})
    both.fit(Training(sequences_of([[0, 1]]), Catalogue(2)))
    np.testing.assert_allclose(both.score(Histories(sequences_of([[1]]), np.array([-1])))[0], [1, 0])


def test_the_linear_autoencoder_is_ease_where_nothing_is_a_transition() -> None:
    rows = [[0, 1, 2], [0, 1], [2, 3], [1, 3, 0], [3]]
    model = LinearAutoencoder(regularise=3.0, transition=0.0, target=0.0, recency=1.0)
    model.fit(Training(sequences_of(rows), Catalogue(4)))
    touched = np.zeros((5, 4))
    for user, row in enumerate(rows):
        touched[user, row] = 1
    inverse = np.linalg.inv(touched.T @ touched + 3.0 * np.eye(4))  # Steck 2019, equation 8
    wanted = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(wanted, 0)
    found = model.score(Histories(sequences_of([[i] for i in range(4)]), np.full(4, -1)))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_transitions_of_the_linear_autoencoder_have_a_direction() -> None:
    model = LinearAutoencoder(regularise=10.0, transition=1.0, target=0.0)
    model.fit(Training(sequences_of([[0, 1], [0, 1], [2, 1], [1, 3]]), Catalogue(4)))
    scores = model.score(Histories(sequences_of([[0], [1]]), np.array([-1, -1])))
    assert scores[0].argmax() == 1
    assert scores[1].argmax() == 3
    np.testing.assert_allclose(scores[1, 0], 0, atol=1e-5)


def test_a_large_catalogue_is_cut_to_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_items(6.0) == 10_000
    assert most_items(0.5) < 6_000
    monkeypatch.setattr(linear, "_MOST_ITEMS", 3)
    model = LinearAutoencoder()
    model.fit(Training(sequences_of([[4, 1], [4, 1], [1, 0], [4, 0], [2, 3]]), Catalogue(6)))
    scores = model.score(Histories(sequences_of([[4], [2]]), np.array([-1, -1])))
    assert scores.shape == (2, 6)
    assert scores[0].argmax() == 1
    assert np.all(scores[0, [2, 3, 5]] < scores[0, [0, 1, 4]].min())
    assert np.ptp(scores[1, [0, 1, 4]]) == 0  # nothing that is known of


@pytest.mark.parametrize("size", [3, 1024, 1500])
def test_a_matrix_changes_its_order_in_place(size: int) -> None:
    square = np.asfortranarray(np.random.default_rng(0).random((size, size), dtype=np.float32))
    wanted = square.copy()
    found = linear._in_rows(square)
    assert found.flags.c_contiguous
    assert np.shares_memory(found, square)
    np.testing.assert_array_equal(found, wanted)


def test_als_solves_the_normal_equations(toy: Toy) -> None:
    model = MODELS["ials"](dim=8, recency=1.0)
    model.fit(toy.training)
    history = toy.questions.histories.part(slice(0, 1))
    items, unobserved = model._items.astype(np.float64), model.config["unobserved"]
    mine = np.unique(history.sequences.items)
    left = unobserved * items.T @ items + items[mine].T @ items[mine]
    left += model.config["regularise"] * (len(mine) + unobserved * ITEMS) * np.eye(8)
    user = np.linalg.solve(left, items[mine].sum(axis=0))
    known = toy.training.counts > 0
    np.testing.assert_allclose(model.score(history)[0][known], (items @ user)[known], rtol=0.05, atol=0.02)


def test_what_networks_are_fed() -> None:
    sequences = sequences_of([[5, 6, 7], [8]])
    fed = _examples(sequences, 3)
    assert fed.users.tolist() == [1, 1]
    assert fed.items.tolist() == [7, 8]
    assert fed.recent.tolist() == [[6, 0, 0], [7, 6, 0]]
    assert _newest(sequences).tolist() == [[6, 7, 8], [9, 0, 0]]
    long = list(range(120))
    parts = [row[row > 0].tolist() for row in _chunks(sequences_of([long, [3]]))]
    assert [(part[0], part[-1]) for part in parts] == [(70, 120), (20, 70), (1, 20)]


def test_content_vectors() -> None:
    few = vectors(Catalogue(6, np.array([0, 0, 1, 1, 2, 2])), 64, 7)
    np.testing.assert_allclose(few @ few.T, np.kron(np.eye(3), np.ones((2, 2))), atol=1e-6)
    assert "neither titles nor categories" in MODELS["content"].suits(Training(sequences_of([[0]]), Catalogue(3)))


def test_sequences_keep_their_order() -> None:
    sequences = sequences_of([[4, 5, 6], [], [7, 8]], times=True)
    assert sequences.from_end.tolist() == [2, 1, 0, 1, 0]
    taken = sequences.take(np.array([2, 1, 0]))
    assert [taken.of(i).tolist() for i in range(3)] == [[7, 8], [], [4, 5, 6]]
    kept = sequences.where(sequences.items != 5)
    assert [kept.of(i).tolist() for i in range(3)] == [[4, 6], [], [7, 8]]
    newest = sequences.newest(4)
    assert [newest.of(i).tolist() for i in range(3)] == [[5, 6], [], [7, 8]]
    assert sequences.newest(5) is sequences
    assert sequences.matrix(9, 0.5, most=2).toarray()[0].tolist() == [0, 0, 0, 0, 0, 0.5, 1, 0, 0]


def test_ranks_for_the_blend_are_pessimistic() -> None:
    scores = np.array([[3.0, 1.0, 1.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(np.exp(-nearness(scores)), [[1, 4, 4, 2]], rtol=1e-5)
    assert top_columns(scores, 3).tolist() == [[0, 3, 1]]
    assert np.argmax(tamed(scores)) == 0


def test_the_blend_learns_whom_to_trust() -> None:
    rng = np.random.default_rng(5)
    relevant = rng.integers(0, 300, 400)
    good = rng.normal(size=(400, 300)).astype(np.float32)
    good[np.arange(400), relevant] += 3
    noise = rng.normal(size=(400, 300)).astype(np.float32)
    examples = Examples()
    examples.add([good[:200], noise[:200]], [np.array([item]) for item in relevant[:200]])
    learned = learn(examples, 2)
    assert learned.weights[[1, 3]].sum() < 0.1 * learned.weights[[0, 2]].sum()

    def hits(blend: Blend) -> float:
        top = blend.combine([good[200:], noise[200:]]).argmax(axis=1)
        return float(np.mean(top == relevant[200:]))

    assert hits(learned) > hits(uniform(2)) + 0.1
    assert learn(Examples(), 2).weights.tolist() == uniform(2).weights.tolist()
