"""Parts are drawn by seed, by class and once and for all; sizes and channels are those of the section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isolatent_train.config import DataSection
from isolatent_train.data import DataError, Labelled, Splits, load_data, source_names
from isolatent_train.data.forms import IMAGES
from isolatent_train.data.parts import finish, hold_out, labelled, name_labels, split


def numbered(sizes: list[int]) -> Labelled:
    """One image per number, of classes of the given sizes, sorted by class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.zeros((len(labels), 2, 2, 1), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.divmod(np.arange(len(labels)), 256)
    return labelled(pixels, labels, "numbers")


def conformed(pixels: torch.Tensor, **section: Any) -> torch.Tensor:
    return IMAGES.conform(pixels, IMAGES.spec(DataSection(**section), pixels.shape[1:]))


def numbers(part: Labelled) -> list[int]:
    return (part.inputs[:, 0, 0, 0].int() * 256 + part.inputs[:, 0, 1, 0]).tolist()


def made(sizes: list[int], **section: Any) -> Splits:
    values = DataSection(**section)
    return finish(values, *split(numbered(sizes), values))


def test_parts_are_disjoint_complete_and_of_the_asked_sizes() -> None:
    splits = made([100, 50, 50])
    assert splits.counts() == {"train": 140, "validation": 20, "test": 40}
    assert sorted(numbers(splits.train) + numbers(splits.validation) + numbers(splits.test)) == list(range(200))


def test_every_class_gives_its_share_to_every_part() -> None:
    splits = made([100, 60, 40])
    counts = [part.labels.bincount().tolist() for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr]
    assert counts == [[70, 42, 28], [10, 6, 4], [20, 12, 8]]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_appears_in_train_however_small(seed: int) -> None:
    splits = made([1, 1, 2, 3, 1, 30], split_seed=seed, test=0.4, validation=0.3)
    assert splits.train.labels is not None
    assert set(splits.train.labels.tolist()) == set(range(6))
    assert sum(splits.counts().values()) == 38


def test_many_classes_of_few_images_still_fill_every_part() -> None:
    assert made([2] * 50).counts() == {"train": 70, "validation": 10, "test": 20}


def test_the_split_seed_decides_the_split_and_the_fingerprint() -> None:
    first, again, other = (made([60, 60], split_seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint()
    assert numbers(first.train) == numbers(again.train)
    assert first.fingerprint() != other.fingerprint()
    assert sorted(numbers(first.test)) != sorted(numbers(other.test))


def test_the_fingerprint_is_that_of_an_earlier_version() -> None:
    assert made([30, 30]).fingerprint() == "95ec518eeeb600185802932e491760e5188f09d39f2d035c3392a3ab3dc348be"


def test_the_fingerprint_sees_order_labels_and_pixels() -> None:
    splits = made([60, 60])
    train, changed = splits.train, splits.train.inputs.clone()
    assert train.labels is not None
    changed[0, 1, 1, 0] += 1
    others = [train[torch.arange(len(train)).flip(0)], Labelled(train.inputs, 1 - train.labels)]
    others += [Labelled(changed, train.labels), Labelled(train.inputs, None)]
    prints = {Splits(splits.spec, part, splits.validation, splits.test).fingerprint() for part in (train, *others)}
    assert len(prints) == 5


def test_the_limit_is_on_train_alone_and_after_splitting() -> None:
    whole, limited = made([100, 100]), made([100, 100], limit=30)
    assert limited.counts() == {"train": 30, "validation": 20, "test": 40}
    assert numbers(limited.train) == numbers(whole.train)[:30]
    assert limited.train.labels is not None
    assert min(limited.train.labels.bincount().tolist()) > 5  # the source is sorted by class, train is not
    assert numbers(limited.test) == numbers(whole.test)


def test_images_without_labels_are_split_as_well() -> None:
    section = DataSection()
    splits = finish(section, *split(Labelled(numbered([50]).inputs, None), section))
    assert splits.counts() == {"train": 35, "validation": 5, "test": 10}
    assert splits.train.labels is None


def test_too_few_images_are_said() -> None:
    with pytest.raises(DataError, match="3 images are too few to train, validate and test; give 10 or more"):
        made([2, 1])
    with pytest.raises(DataError, match=r"12 images of 12 classes are too few to set 2 aside for test; add images"):
        made([1] * 12)
    with pytest.raises(DataError, match=r"lower data\.validation and data\.test"):
        made([20], test=0.5, validation=0.5)


def test_an_empty_part_or_an_unknown_class_is_said() -> None:
    section, data = DataSection(), numbered([10, 10])
    with pytest.raises(DataError, match="no test images"):
        finish(section, data, data, data[:0])
    with pytest.raises(DataError, match="no training images of dog"):
        finish(section, data[:10], data[:10], data, classes=("cat", "dog"))


def test_a_fixed_number_is_held_out_exactly() -> None:
    rest, held = hold_out(numbered([90, 10]), 37, DataSection(), "validation")
    assert len(held) == 37
    assert sorted(numbers(rest) + numbers(held)) == list(range(100))


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((5, 4), "u1", r"shape \(5, 4\)"),
        ((5, 4, 4, 4), "u1", r"\(N, H, W, 3\)"),
        ((5, 0, 4), "u1", "shape"),
        ((5, 4, 4), "f4", "dtype float32; store uint8"),
    ],
)
def test_arrays_that_are_no_images_are_refused(shape: tuple[int, ...], dtype: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"here: .*{reason}"):
        labelled(np.zeros(shape, dtype), None, "here")


def test_labels_must_be_one_per_image() -> None:
    with pytest.raises(DataError, match=r"labels of shape \(4,\) for 5 images"):
        labelled(np.zeros((5, 2, 2), np.uint8), np.zeros(4, np.int64), "here")


def test_labels_are_counted_from_0_and_named_in_order() -> None:
    (train, test), classes = name_labels(np.array([5, 100, 20]), np.array([[20], [5]]), what="here")
    assert (train is not None and train.tolist(), test is not None and test.tolist()) == ([0, 2, 1], [1, 0])
    assert classes == ("5", "20", "100")
    assert name_labels(np.array(["b", "a"]), what="here")[1] == ("a", "b")


def test_labels_of_strange_types_or_for_some_parts_only_are_refused() -> None:
    with pytest.raises(DataError, match="labels of dtype float64"):
        name_labels(np.array([0.5]), what="here")
    with pytest.raises(DataError, match="labels for some parts only"):
        name_labels(np.array([1]), None, what="here")


def test_labels_of_every_whole_type_are_numbered_alike() -> None:
    (train, test), classes = name_labels(np.array([1, 0], np.uint64), np.array([0, 1], np.int64), what="here")
    assert (train is not None and train.tolist(), test is not None and test.tolist()) == ([1, 0], [0, 1])
    assert classes == ("0", "1")


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_one_hot_labels_are_said_to_be_such(dtype: type[np.generic]) -> None:
    with pytest.raises(DataError, match=r"one class number per input, not one-hot rows of shape \(16, 10\); store"):
        name_labels(np.eye(16, 10, dtype=dtype), what="here")


def test_native_pixels_pass_untouched() -> None:
    pixels = numbered([10]).inputs
    assert conformed(pixels) is pixels


def test_grey_becomes_colour_and_colour_grey() -> None:
    grey = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4, 1)
    colour = conformed(grey, channels=3)
    assert torch.equal(colour, grey.expand(3, 4, 4, 3))
    assert torch.equal(conformed(colour, channels=1), grey)


def test_pixels_are_resized_by_the_rule_of_the_section() -> None:
    white = torch.full((1, 2, 4, 1), 255, dtype=torch.uint8)
    fitted, stretched, cropped = (conformed(white, size=8, resize=rule, fill=7) for rule in ("fit", "stretch", "crop"))
    assert fitted[0, :, 0, 0].tolist() == [7, 7, 255, 255, 255, 255, 7, 7]
    assert bool((stretched == 255).all())
    assert bool((cropped == 255).all())


def test_an_impossible_size_is_said() -> None:
    with pytest.raises(DataError, match=r"2 x 5000 are not possible; set data\.size"):
        IMAGES.spec(DataSection(), (2, 5000, 1))


def test_digits_take_size_channels_and_limit() -> None:
    splits = load_data(DataSection(size=(16, 24), channels=3, limit=100))
    assert splits.counts() == {"train": 100, "validation": 200, "test": 400}
    assert splits.test.inputs.shape == (400, 16, 24, 3)
    assert splits.spec.shape == (16, 24, 3)


def test_every_source_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name in source_names():
        assert re.search(rf"^\| `{name}[:`]", text, re.MULTILINE)
