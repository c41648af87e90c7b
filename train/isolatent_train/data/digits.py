"""`digits`: 1,797 real scans of handwritten digits that come with scikit-learn; no file, no network.

Each 8 x 8 scan holds counts 0 to 16 of ink in blocks of a finer scan. It is enlarged to 16 x 16 grey levels and framed
by a margin of 2, so that a turned or shifted digit stays whole.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from isolatent_train.config import DataSection
from isolatent_train.data.parts import finish
from isolatent_train.data.splits import DataError, Labelled, Splits

SIDE = 20
MARGIN = 2
SPLIT_SEED = 20210
TEST, VALIDATION = 400, 200


def load(place: str, section: DataSection) -> Splits:
    """1,197 train, 200 validation and 400 test digits, the same for every run and split seed. `place` must be empty."""
    if place:
        raise DataError(f"data 'digits:{place}': digits are built in and take no place; write digits")
    scans, labels = load_digits(return_X_y=True)
    pixels = np.stack([_enlarge(scan.reshape(8, 8)) for scan in scans])[..., None]  # (1797, 16, 16, 1)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    digits = Labelled(torch.from_numpy(pixels), torch.from_numpy(labels).long())[order]
    return finish(
        section,
        train=digits[TEST + VALIDATION :],
        validation=digits[TEST : TEST + VALIDATION],
        test=digits[:TEST],
        classes=tuple("0123456789"),
    )


def _enlarge(
    scan: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    grey = Image.fromarray(np.asarray(scan * (255 / 16) + 0.5, np.uint8))
    inner = SIDE - 2 * MARGIN
    return np.pad(np.asarray(grey.resize((inner, inner), Image.Resampling.BICUBIC)), MARGIN)
