"""Point clouds: files, arrays and numbers of any number of points become normalised float32 points (P, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent_export.inputs.errors import InputError, Limits
from isolatent_export.inputs.geometry import describe
from isolatent_export.inputs.readers import npz
from isolatent_export.inputs.sampling import pick, sample
from isolatent_export.manifest import PointCloudInput

Array = NDArray[Any]

_AT_ONCE = 16  # clouds of a thousand points that a processor's cache holds


def decode(data: bytes, spec: PointCloudInput, limits: Limits) -> Array:
    """Points (P, 3) of a cloud or mesh file: sampled, then normalised. Raises InputError."""
    geometry = describe(data, limits)
    _require_usable(geometry.points[None])
    with np.errstate(all="ignore"):  # what overflows is found and refused
        points = sample(geometry, spec.points, spec.sampling)
        cloud: Array = normalize(points[None], spec)[0]
    return cloud


def parse(data: bytes) -> Array:
    """The array of an npy file, of any shape. Raises InputError."""
    return npz.parse(data)


def is_item(shape: tuple[int, ...], spec: PointCloudInput) -> bool:  # noqa: ARG001 - any number of points will do
    """Whether an array of this shape is one cloud (M, 3)."""
    return len(shape) == 2 and shape[1] == 3


def wrong_shape(shape: tuple[int, ...], spec: PointCloudInput, batch: str) -> InputError:
    """What to say of an array of another shape; `batch` is the letter of the batch axis, or empty."""
    got = ", ".join(map(str, shape))
    expected = ", ".join([*batch, "points", "3"])
    advice = f"any number of points is sampled to {spec.points}; send rows of x, y, z"
    return InputError("wrong_shape", f"shape ({got}), the model takes ({expected}), {advice}")


def convert(items: Array, spec: PointCloudInput, limits: Limits) -> Array:
    """Clouds (N, M, 3) float32 or float64 as (N, P, 3) float32: sampled, then normalised. Raises InputError."""
    if items.dtype.kind != "f":
        raise InputError("wrong_dtype", f"dtype {items.dtype}, the model takes float32 points; convert the array")
    if items.shape[1] > limits.points:
        raise InputError(
            "too_many_points", f"{items.shape[1]} points, the limit is {limits.points}; thin the cloud out first"
        )
    _require_usable(items)
    with np.errstate(all="ignore"):
        return normalize(pick(items, spec.points, spec.sampling), spec)


def from_numbers(numbers: Array) -> Array:
    """Numbers of JSON as points."""
    return numbers.astype(np.float64)


def normalize(clouds: Array, spec: PointCloudInput) -> NDArray[np.float32]:
    """Clouds (N, P, 3) as the encoder takes them: by `unit_sphere` the mean at 0 and the farthest point at 1.

    By `principal` they are also turned into their principal axes. Computed in float64, as coordinates may be millions
    with millimetres behind the point. Raises InputError where the points of a cloud are all equal, or too large for
    numbers to hold.
    """
    if (clouds == clouds[:, :1]).all(axis=(1, 2)).any():
        raise InputError("degenerate", "all points are equal; send a cloud that has a shape")
    points = np.empty(clouds.shape, np.float32)
    for start in range(0, len(clouds), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        exact = np.ascontiguousarray(clouds[part].transpose(2, 0, 1), np.float64)  # (3, N, P): ten times as fast
        if spec.normalization != "none":
            exact = exact - exact.mean(axis=2, keepdims=True)
            if spec.normalization == "principal":
                exact = _in_principal_axes(exact)
            x, y, z = exact
            radius = np.sqrt((x * x + y * y + z * z).max(axis=1))[:, None]
            exact /= np.where(np.isfinite(radius), radius, np.nan)
        points[part] = exact.transpose(1, 2, 0)
    if not np.isfinite(points).all():
        raise InputError("non_finite", "coordinates out of range for 32-bit numbers; scale the cloud first")
    return points


def _in_principal_axes(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clouds (3, N, P) with mean 0 turned so that variance falls from axis to axis and no skewness is negative."""
    centred = centred / np.abs(centred).max(axis=(0, 2))[:, None]  # powers of UTM coordinates would lose digits
    covariance = np.einsum("inp,jnp->nij", centred, centred)
    axes = np.linalg.eigh(np.where(np.isfinite(covariance), covariance, 0))[1][:, :, ::-1]  # (N, 3, 3), in columns
    turned: NDArray[np.float64] = np.einsum("nij,inp->jnp", axes, centred)
    turned *= np.where((turned**3).sum(axis=2) < 0, -1.0, 1.0)[:, :, None]
    return turned


def _require_usable(clouds: Array) -> None:
    """Raise InputError for clouds (N, M, 3) of fewer than two points, or with points that are not finite."""
    if clouds.shape[1] < 2:
        found = "no points" if clouds.shape[1] == 0 else "a single point"
        raise InputError("degenerate", f"{found}; send a cloud that has a shape")
    finite = np.isfinite(clouds)
    if not finite.all():
        count = int((~finite.all(axis=2)).sum())
        raise InputError("non_finite", f"{count} points with NaN or infinite coordinates; remove them first")
