"""Where stored inputs and the network's tensors meet: the only place that knows their scale and layout.

A new modality is one more codec here and one line in `codec_of`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray
from torch import Tensor

from isolatent_export.manifest import ImageInput, InputSpec
from isolatent_export.pictures import render

Modality = Literal["image", "point_cloud"]


class Codec(Protocol):
    """Both ways between inputs as they are stored and served, and what a network computes with."""

    modality: ClassVar[Modality]

    def to_network(self, inputs: Tensor) -> Tensor:
        """Stored inputs (B, ...) -> what encoders take."""

    def to_inputs(self, outputs: Tensor) -> Tensor:
        """Expected inputs as networks lay them out -> layout and scale of reconstructions."""

    def pictures(self, inputs: Tensor) -> NDArray[Any]:
        """Inputs as stored, or reconstructions, as images (N, H, W, C), uint8 or float in 0..1."""


class Pixels:
    """uint8 pixels 0..255 (B, H, W, C) <-> float32 images 0..1 (B, C, H, W)."""

    modality: ClassVar[Modality] = "image"

    def to_network(self, inputs: Tensor) -> Tensor:
        """Pixels -> images."""
        return inputs.permute(0, 3, 1, 2).float() / 255

    def to_inputs(self, outputs: Tensor) -> Tensor:
        """Images -> (B, H, W, C), still float32 in 0..1."""
        return outputs.permute(0, 2, 3, 1)

    def pictures(self, inputs: Tensor) -> NDArray[Any]:
        """The images themselves."""
        return inputs.cpu().numpy()


class Points:
    """Normalised float32 points (B, P, 3), stored just as networks take them."""

    modality: ClassVar[Modality] = "point_cloud"

    def to_network(self, inputs: Tensor) -> Tensor:
        """The points."""
        return inputs

    def to_inputs(self, outputs: Tensor) -> Tensor:
        """The points."""
        return outputs

    def pictures(self, inputs: Tensor) -> NDArray[Any]:
        """The clouds as seen from the front, right and above."""
        return render(inputs.cpu().numpy())


def codec_of(spec: InputSpec) -> Codec:
    """The codec of an input specification."""
    return Pixels() if isinstance(spec, ImageInput) else Points()
