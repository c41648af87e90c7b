"""Sets of transformations that have a name; a new one is one more entry."""

from __future__ import annotations

from typing import Any

_WAVER = {"kind": "rotate", "axis": "any", "degrees": 15}
_SCALE = {"kind": "scale", "low": 2 / 3, "high": 3 / 2}
_TRANSLATION = {"kind": "translate", "distance": 0.2}
_JITTER = {"kind": "jitter", "sigma": 0.01, "clip": 0.02}
_DROPOUT = {"kind": "dropout", "fraction": 0.5}

IMAGES: dict[str, list[dict[str, Any]]] = {
    # Sinha & Dieng 2021, for characters; then the same at roughly twice the strength, and each part alone.
    "paper": [{"kind": "affine", "rotation": 15, "translation": 0.07, "scale": 0.1}],
    "large": [{"kind": "affine", "rotation": 30, "translation": 0.1, "scale": 0.25}],
    "rotation": [{"kind": "affine", "rotation": 15, "translation": 0, "scale": 0}],
    "translation": [{"kind": "affine", "rotation": 0, "translation": 0.07, "scale": 0}],
    "scale": [{"kind": "affine", "rotation": 0, "translation": 0, "scale": 0.1}],
    # Photographs may be mirrored, cropped and recoloured, but hardly turned.
    "photo": [
        {"kind": "crop"},
        {"kind": "flip"},
        {"kind": "affine", "rotation": 5, "translation": 0, "scale": 0, "padding": "reflect"},
        {"kind": "colour_jitter"},
    ],
}

CLOUDS: dict[str, list[dict[str, Any]]] = {
    # The field's practice: objects that stand upright, or lie anyhow.
    "cloud": [{"kind": "rotate", "axis": "z"}, _SCALE, _TRANSLATION, _JITTER, _DROPOUT],
    "cloud-any": [{"kind": "rotate", "axis": "any"}, _SCALE, _TRANSLATION, _JITTER, _DROPOUT],
    # Objects laid along their principal axes, which have no signs of their own and waver with the points; and where two
    # of them are alike, no order either.
    "cloud-signs": [{"kind": "mirror"}, _WAVER, _SCALE, _JITTER, _DROPOUT],
    "cloud-axes": [{"kind": "permute"}, {"kind": "mirror"}, _WAVER, _SCALE, _JITTER, _DROPOUT],
    # Each transformation alone.
    "cloud-rotation": [{"kind": "rotate", "axis": "z"}],
    "cloud-scale": [_SCALE],
    "cloud-translation": [_TRANSLATION],
    "cloud-jitter": [_JITTER],
    "cloud-dropout": [_DROPOUT],
    "cloud-occlusion": [{"kind": "occlude"}],
    "cloud-mirror": [{"kind": "mirror"}],
    "cloud-permutation": [{"kind": "permute"}],
}

PRESETS: dict[str, list[dict[str, Any]]] = {"none": [], **IMAGES, **CLOUDS}
