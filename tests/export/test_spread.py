"""A batch computed in pieces by several threads: the same rows, the same errors, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from isolatent_export import spread as spreading
from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.graphs import Plain
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.spread import Spread, piece
from isolatent_export.verify import load_verified

THREADS = 3


class Doubling:
    """A graph that doubles, refuses what is negative, and remembers what it was given by which thread."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.together: threading.Barrier | None = None
        self.seconds = 0.0

    def run(self, items: np.ndarray) -> list[np.ndarray]:
        """2 x."""
        self.sizes.append(len(items))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if self.together:
            self.together.wait(10)
            self.together = None
        if (items < 0).any():
            raise ValueError("negative")
        return [2 * items, -items]


def batch(count: int) -> np.ndarray:
    """Different rows."""
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize("count", [3, 4, 11, 12, 13, 64, 100])
def test_rows_are_in_order(count: int) -> None:
    one, few = Doubling(), Doubling()
    doubled, negated = Spread(one, few, THREADS, 1).run(batch(count))
    assert np.array_equal(doubled, 2 * batch(count))
    assert np.array_equal(negated, -batch(count))
    assert sum(one.sizes) == count
    assert THREADS <= len(one.sizes) <= 4 * THREADS
    assert few.sizes == []


@pytest.mark.parametrize(("items", "count", "pieces"), [(1, 2, 0), (5, 14, 0), (5, 15, 3), (5, 29, 5), (5, 1000, 12)])
def test_what_makes_no_piece_for_each_thread_is_left_to_all_of_them_at_once(
    items: int, count: int, pieces: int
) -> None:
    one, few = Doubling(), Doubling()
    doubled, _ = Spread(one, few, THREADS, items).run(batch(count))
    assert np.array_equal(doubled, 2 * batch(count))
    assert (len(one.sizes), few.sizes) == (pieces, [] if pieces else [count])
    assert all(size >= items for size in one.sizes)


def test_a_piece_is_as_many_items_as_take_five_milliseconds() -> None:
    one = Doubling()
    one.seconds = 0.001
    assert piece(one, batch(1)) in (3, 4, 5)
    one.seconds = 0.02
    assert piece(one, batch(1)) == 1


def test_pieces_are_computed_at_the_same_time() -> None:
    one = Doubling()
    one.together = threading.Barrier(THREADS)
    Spread(one, Doubling(), THREADS, 1).run(batch(THREADS))
    assert len(one.threads) == THREADS


def test_a_piece_that_fails_fails_the_batch_and_nothing_else() -> None:
    spread = Spread(Doubling(), Doubling(), THREADS, 1)
    items = batch(30)
    items[17] = -1
    for _ in range(20):
        with pytest.raises(ValueError, match="negative"):
            spread.run(items)
        assert np.array_equal(spread.run(batch(30))[0], 2 * batch(30))


def test_several_threads_may_call_it() -> None:
    spread = Spread(Doubling(), Doubling(), THREADS, 1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(spread.run, [batch(20) + place for place in range(200)]))
    for place, (doubled, _) in enumerate(answers):
        assert np.array_equal(doubled, 2 * (batch(20) + place))


def test_its_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    spread = Spread(Doubling(), Doubling(), THREADS, 1)
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == THREADS - 1
    spread.run(batch(30))
    del spread
    gc.collect()
    for helper in helpers:
        helper.join(10)
    assert not any(helper.is_alive() for helper in helpers)


@pytest.mark.parametrize("path", ["bundle_path", "cloud_bundle_path"])
@pytest.mark.parametrize("seconds", [0.0, 100.0])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_a_bundle_says_the_same_on_any_number_of_threads(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, path: str, seconds: float, count: int
) -> None:
    monkeypatch.setattr(spreading, "PIECE_SECONDS", seconds)  # pieces of one item, and none at all
    bundle = Bundle.open(Path(request.getfixturevalue(path)))
    golden = bundle.golden().input
    items = np.concatenate([golden] * (count // len(golden) + 1))[:count]
    runtime = OnnxRuntime(bundle, threads=THREADS)
    assert runtime.sizes == ({1} if seconds else {1, THREADS})
    for rows, wanted in zip(runtime.encode(items), OnnxRuntime(bundle, threads=1).encode(items), strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-5)


def test_threads_that_compute_something_else_are_found_before_they_serve(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "PIECE_SECONDS", 0.0)
    run = Plain.run
    monkeypatch.setattr(Spread, "run", lambda self, items: [rows + (len(items) >= 8) for rows in run(self._one, items)])
    with pytest.raises(BundleError, match="batch 8: mean differs by 1"):
        load_verified(Bundle.open(bundle_path), threads=8)
