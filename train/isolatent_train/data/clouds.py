"""`clouds:DIR`: a folder of point clouds and meshes of any format that the service takes.

One sub-folder per class, searched to any depth, or all files directly in DIR (no labels). What belongs to a mesh, such
as its materials and textures, is passed over; every other file must be a cloud or a mesh, or is left out and named.
"""

from __future__ import annotations

from isolatent_train.config import DataSection
from isolatent_train.data.folders import SIDECARS, load_folder
from isolatent_train.data.forms import CLOUDS
from isolatent_train.data.splits import Splits

MATERIALS = frozenset({".mtl", ".png", ".jpg", ".jpeg", ".bmp", ".tga", ".tif", ".tiff", ".gif", ".webp"})


def load(place: str, section: DataSection) -> Splits:
    """Decode every file and split by class. Raises DataError: nothing there, nothing readable, or too few."""
    return load_folder("clouds", place, section, CLOUDS.spec(section, ()), SIDECARS | MATERIALS)
