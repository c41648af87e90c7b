"""`omniglot:FILE.npz`: handwritten characters of 50 alphabets, 28 x 28, ink bright on black.

The file holds `images` (N, 28, 28) uint8, 0..1 or 0..255, `alphabet` (N,), `split` (N,) 0 background or 1 evaluation,
and may hold `alphabet_names`. Used are the background images. A label is the ALPHABET of a character (30 in the
background set, renumbered from 0), not the character. Of 19,280 images 16,280 / 1,000 / 2,000 drawn at random with the
split seed are for training, validation and testing; of another number, the section's fractions.
"""

from __future__ import annotations

import numpy as np

from isolatent_train.config import DataSection
from isolatent_train.data.files import npz_names, read_npz, require_file
from isolatent_train.data.parts import finish, hold_out, labelled, name_labels, share
from isolatent_train.data.splits import DataError, Splits

OFFICIAL_BACKGROUND, OFFICIAL_VALIDATION, OFFICIAL_TEST = 19_280, 1_000, 2_000


def load(place: str, section: DataSection) -> Splits:
    """The background images in three random parts. Raises DataError naming what the file lacks."""
    path = require_file(place, "omniglot")
    pixels, alphabet, part = read_npz(path, ("images", "alphabet", "split"))
    if not pixels.ndim or not pixels.shape[:1] == alphabet.shape == part.shape:
        shapes = f"{pixels.shape}, {alphabet.shape} and {part.shape}"
        raise DataError(f"{path}: images, alphabet and split differ in length ({shapes}); download or convert it again")
    if "alphabet_names" in npz_names(path):
        (names,) = read_npz(path, ("alphabet_names",))
        if names.ndim != 1 or alphabet.dtype.kind not in "iu" or not np.isin(alphabet, range(len(names))).all():
            raise DataError(
                f"{path}: an alphabet has no name in alphabet_names; store numbers from 0 and one name for each"
            )
        alphabet = names[alphabet]

    background = part == 0
    pixels = pixels[background]
    if pixels.dtype.kind in "bui" and pixels.max(initial=0) <= 1:
        pixels = pixels * np.uint8(255)
    (labels,), classes = name_labels(alphabet[background], what=str(path))
    data = labelled(pixels, labels, str(path))

    official = len(data) == OFFICIAL_BACKGROUND
    test_count = OFFICIAL_TEST if official else share(data, section.test)
    validation_count = OFFICIAL_VALIDATION if official else share(data, section.validation)
    rest, test = hold_out(data, test_count, section, "test", stratified=not official)
    train, validation = hold_out(rest, validation_count, section, "validation", stratified=not official)
    return finish(section, train, validation, test, classes=classes)
