"""What the server and its models say of themselves in the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from isolatent import __version__
from isolatent_export.manifest import InputSpec, Manifest
from isolatent_serve.protocol import outputs

INPUT = "input"
"""The name of the only input."""

DATATYPES = {"image": "UINT8", "point_cloud": "FP32"}
"""What its elements are, by modality."""


def server() -> dict[str, Any]:
    """The server's facts."""
    return {"name": "isolatent", "version": __version__, "extensions": ["binary_tensor_data"]}


def model(manifest: Manifest) -> dict[str, Any]:
    """A model's facts: the array that it takes, and every output that can be asked for."""
    shapes = outputs.shapes(manifest)
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [_tensor(INPUT, DATATYPES[manifest.modality], _input_shape(manifest.input))],
        "outputs": [_tensor(name, "FP32", shape) for name, shape in shapes.items()],
    }


def _input_shape(spec: InputSpec) -> tuple[int, ...]:
    return spec.shape if spec.modality == "image" else (-1, 3)  # any number of points


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}
