"""A batch computed in pieces by several threads: the same rows, the same errors, and no thread left behind."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from isolatent_export.bundle import Bundle
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.spread import Spread

THREADS = 3


class Doubling:
    """A graph that doubles, refuses what is negative, and remembers what it was given by which thread."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.together: threading.Barrier | None = None

    def run(self, items: np.ndarray) -> list[np.ndarray]:
        """2 x."""
        self.sizes.append(len(items))
        self.threads.add(threading.get_ident())
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
    doubled, negated = Spread(one, few, THREADS).run(batch(count))
    assert np.array_equal(doubled, 2 * batch(count))
    assert np.array_equal(negated, -batch(count))
    assert sum(one.sizes) == count
    assert THREADS <= len(one.sizes) <= 4 * THREADS
    assert few.sizes == []


def test_fewer_items_than_threads_are_left_to_all_of_them_at_once() -> None:
    one, few = Doubling(), Doubling()
    doubled, _ = Spread(one, few, THREADS).run(batch(2))
    assert np.array_equal(doubled, 2 * batch(2))
    assert (one.sizes, few.sizes) == ([], [2])


def test_pieces_are_computed_at_the_same_time() -> None:
    one = Doubling()
    one.together = threading.Barrier(THREADS)
    Spread(one, Doubling(), THREADS).run(batch(THREADS))
    assert len(one.threads) == THREADS


def test_a_piece_that_fails_fails_the_batch_and_nothing_else() -> None:
    spread = Spread(Doubling(), Doubling(), THREADS)
    items = batch(30)
    items[17] = -1
    for _ in range(20):
        with pytest.raises(ValueError, match="negative"):
            spread.run(items)
        assert np.array_equal(spread.run(batch(30))[0], 2 * batch(30))


def test_several_threads_may_call_it() -> None:
    spread = Spread(Doubling(), Doubling(), THREADS)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(spread.run, [batch(20) + place for place in range(200)]))
    for place, (doubled, _) in enumerate(answers):
        assert np.array_equal(doubled, 2 * (batch(20) + place))


def test_its_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    spread = Spread(Doubling(), Doubling(), THREADS)
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == THREADS - 1
    spread.run(batch(30))
    del spread
    gc.collect()
    for helper in helpers:
        helper.join(10)
    assert not any(helper.is_alive() for helper in helpers)


@pytest.mark.parametrize("path", ["bundle_path", "cloud_bundle_path"])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_a_bundle_says_the_same_on_any_number_of_threads(request: pytest.FixtureRequest, path: str, count: int) -> None:
    bundle = Bundle.open(Path(request.getfixturevalue(path)))
    golden = bundle.golden().input
    items = np.concatenate([golden] * (count // len(golden) + 1))[:count]
    expected, found = OnnxRuntime(bundle, threads=1).encode(items), OnnxRuntime(bundle, threads=THREADS).encode(items)
    for rows, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-5)
