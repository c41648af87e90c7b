"""`images:DIR`: a folder of image files of any format, size and mode that the service takes.

One sub-folder per class, searched to any depth, or all files directly in DIR (no labels). Sidecars such as .txt and
.json are passed over; every other file must be an image, or is left out and named.
"""

from __future__ import annotations

from isolatent_train.config import DataSection
from isolatent_train.data.folders import SIDECARS, load_folder
from isolatent_train.data.forms import IMAGES
from isolatent_train.data.splits import Splits

NATIVE = (64, 64, 3)
"""What an image becomes where the section does not say."""


def load(place: str, section: DataSection) -> Splits:
    """Decode every file and split by class. Raises DataError: nothing there, nothing readable, or too few."""
    return load_folder("images", place, section, IMAGES.spec(section, NATIVE), SIDECARS | {".txt", ".csv", ".tsv"})
