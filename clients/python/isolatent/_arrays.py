"""Arrays of any library as inputs: uint8 is pictures, floating point is point clouds, and the axes tell one from many.

A tensor that NumPy can read is taken as the array that it is; nothing is imported for it.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isolatent._errors import InputError

Pixels: TypeAlias = NDArray[np.uint8]
Points: TypeAlias = "NDArray[np.float32] | NDArray[np.float64]"

PIXELS = "convert values in 0..1 with (array * 255).round().astype(numpy.uint8)"


@runtime_checkable
class Array(Protocol):
    """A NumPy array, or a tensor with its attributes, such as PyTorch's, Open3D's or an HDF5 data set."""

    @property
    def dtype(self) -> Any:
        """What its numbers are."""
        ...

    @property
    def ndim(self) -> Any:
        """How many axes it has."""
        ...

    @property
    def shape(self) -> Any:
        """How long they are."""
        ...


def is_one_array(array: Array) -> bool:
    """Whether the array is one input rather than a batch of them along its first axis; see `is_one`."""
    kind = str(getattr(array.dtype, "name", array.dtype)).lower()  # float32, torch.float32, Float32
    if kind.startswith(("object", "str")):
        return False
    if "float" in kind:
        return bool(array.ndim < 3)
    return bool(array.ndim < 3 or (array.ndim == 3 and array.shape[-1] in (1, 3)))


def to_numpy(value: Any, label: str) -> NDArray[Any]:
    """The array that `value` is, or can be seen as. Raises InputError where it cannot."""
    try:
        tensor_only = hasattr(value, "numpy") and not hasattr(value, "__array__")  # Open3D's
        return np.asarray(value.numpy() if tensor_only else value)
    except (TypeError, ValueError, RuntimeError) as error:  # on a GPU, or part of a gradient
        raise InputError(f"{label} is a {type(value).__name__} that cannot be read as an array ({error})") from None


def checked(array: NDArray[Any], label: str) -> Pixels | Points:
    """Pixels (H, W) or (H, W, C), or points (M, 3), as the dtype says. Raises InputError with the remedy."""
    if array.dtype == np.uint8:
        return _pixels(array, label)
    what = f"{label} is an array {array.shape} of {array.dtype}"
    if array.dtype.kind == "f":
        return points(array, what)
    if {"x", "y", "z"} <= set(array.dtype.names or ()):  # as readers of PCD, PLY and ROS messages give
        return points(np.stack([array[axis] for axis in "xyz"], axis=-1), what)
    raise InputError(f"{what}, expected pixels 0..255 of uint8 or points of float32 or float64; {_conversion(array)}")


def points(array: NDArray[Any], what: str) -> Points:
    """The points (M, 3) of one cloud, in float32 where that is exact and else in float64. Raises InputError."""
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{what}, expected the points (M, 3) of one cloud; {_layout(array.shape)}")
    if len(array) == 0:
        raise InputError(f"{what} with 0 points; if it was read from a file, pass the path of that file instead")
    if array.dtype.kind != "f":
        raise InputError(f"{what}, expected float32 or float64; convert coordinates with array.astype(numpy.float32)")
    exact = array.astype("<f4" if array.dtype.itemsize <= 4 else "<f8", copy=False)
    finite = np.isfinite(exact).all(axis=1)
    if not finite.all():
        first, count = int(finite.argmin()), int((~finite).sum())
        raise InputError(
            f"{what}: point {first} is {tuple(exact[first].tolist())}, {count} of {len(exact)} points are not finite; "
            "drop them with array[numpy.isfinite(array).all(axis=1)]"
        )
    return exact


def _pixels(array: Pixels, label: str) -> Pixels:
    if array.ndim not in (2, 3) or 0 in array.shape:
        what = f"{label} is an array {array.shape} of {array.dtype}"
        raise InputError(f"{what}, expected one picture (height, width) or (height, width, channels)")
    return array


def _layout(shape: tuple[int, ...]) -> str:
    """How to get from an array of this shape to points (M, 3), or to pixels where it is a picture."""
    if shape == (3,):
        return "this is a single point: pass all points of the cloud as one array, numpy.asarray(points)"
    if len(shape) == 2 and shape[0] == 3:
        return "pass array.T"
    return f"leave out further columns with array[:, :3]; a picture is uint8: {PIXELS}"


def _conversion(array: NDArray[Any]) -> str:
    match array.dtype.kind:
        case "b":
            return "convert pixels with array.astype(numpy.uint8) * 255"
        case "i" | "u" if array.ndim == 2 and array.shape[-1] == 3:
            return "convert coordinates with array.astype(numpy.float32)"
        case "i" | "u":
            return "convert pixels with array.astype(numpy.uint8), coordinates with array.astype(numpy.float32)"
    return "pass several inputs as a list, and files by their paths"
