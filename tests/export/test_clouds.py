"""Clouds and meshes become normalised points: sampled alike every time, exact, and refused where they have no shape."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from isolatent_export.inputs import (
    InputError,
    Limits,
    decode_array,
    decode_arrays,
    decode_batch,
    decode_item,
    decode_numbers,
    is_item,
)
from isolatent_export.inputs.geometry import Geometry
from isolatent_export.inputs.sampling import pick, sample, sample_surface
from isolatent_export.manifest import ImageInput, PointCloudInput

Array = np.ndarray[Any, Any]

SPEC = PointCloudInput(points=64)
RAW = PointCloudInput(points=64, normalization="none")
PRINCIPAL = PointCloudInput(points=64, normalization="principal")
FARTHEST = PointCloudInput(points=64, sampling="farthest")

L_SHAPE = Geometry(  # a triangle of area 8 beside one of area 2, and one of none
    np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [10, 0, 0], [12, 0, 0], [10, 2, 0], [20, 0, 0]], np.float64),
    np.array([[3, 4, 5], [0, 1, 2], [0, 3, 6]]),
)


def blob(count: int, *, dtype: str = "<f4") -> Array:
    return (np.random.default_rng(count).normal(size=(count, 3)) * (3, 2, 1) + 5).astype(dtype)


def npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Array) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def ply(points: Array) -> bytes:
    rows = "\n".join(" ".join(map(repr, row)) for row in points.tolist())
    header = (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty double x\nproperty double y\nproperty double z"
    )
    return f"{header}\nend_header\n{rows}\n".encode()


def test_the_mean_moves_to_the_origin_and_the_farthest_point_to_1() -> None:
    cloud = decode_array(blob(500), SPEC)
    assert cloud.shape == (64, 3)
    assert cloud.dtype == np.float32
    assert np.abs(cloud.mean(axis=0, dtype=np.float64)).max() < 1e-7
    assert np.linalg.norm(cloud, axis=1).max() == pytest.approx(1)


def test_coordinates_of_millions_lose_nothing() -> None:
    near = np.random.default_rng(0).integers(0, 1024, (64, 3)) / 64  # exact in binary, also beside millions
    far = near + np.array([665_171.0, 5_648_340.0, 233.0])
    assert np.abs(decode_item(ply(far), SPEC, Limits()) - decode_item(ply(near), SPEC, Limits())).max() < 1e-6
    assert np.array_equal(decode_array(near, RAW), near.astype(np.float32))


@pytest.mark.parametrize("spec", [SPEC, FARTHEST], ids=["random", "farthest"])
def test_the_same_points_come_out_every_time_and_however_they_are_sent(spec: PointCloudInput) -> None:
    points = blob(300)
    expected = decode_array(points, spec)
    assert np.array_equal(decode_item(npy(points), spec, Limits()), expected)
    assert np.array_equal(decode_item(ply(points), spec, Limits()), expected)
    assert np.array_equal(decode_arrays(np.stack([blob(300)[::-1], points]), spec)[1], expected)
    assert np.array_equal((decode_numbers(points.tolist(), spec, Limits()) or [])[0], expected)


def test_a_cloud_of_the_right_size_keeps_its_order() -> None:
    points = blob(64)
    assert np.array_equal(decode_array(points, RAW), points)
    assert np.array_equal(decode_array(points, RAW.model_copy(update={"sampling": "farthest"})), points)


def test_a_small_cloud_is_whole_with_points_repeated() -> None:
    points = blob(10)
    found, counts = np.unique(decode_array(points, RAW), axis=0, return_counts=True)
    assert np.array_equal(found, np.unique(points, axis=0))
    assert set(counts) == {6, 7}


def test_a_large_cloud_gives_distinct_points_of_it() -> None:
    points = blob(5000)
    cloud = decode_array(points, RAW)
    assert len(np.unique(cloud, axis=0)) == 64
    assert set(map(tuple, cloud.tolist())) <= set(map(tuple, points.tolist()))


def test_farthest_points_spread_and_random_ones_do_not() -> None:
    dense = np.concatenate([blob(2000) / 1000, blob(20) * 10])  # a lump, and 20 points around it

    def gap(cloud: Array) -> float:
        distances = np.linalg.norm(cloud[:, None] - cloud[None], axis=2)
        return float(np.min(distances + np.eye(len(cloud)) * 1e9))

    spread, drawn = pick(dense[None], 20, "farthest")[0], pick(dense[None], 20, "random")[0]
    assert gap(spread) > 100 * gap(drawn)


def test_points_of_a_mesh_lie_on_its_faces_in_proportion_to_their_area() -> None:
    points = sample(L_SHAPE, 10_000, "random")
    left = points[:, 0] < 5
    assert (points[:, 2] == 0).all()
    assert (points.min(axis=1) >= 0).all()
    assert (points[left, 0] + points[left, 1] <= 4 + 1e-9).all()
    assert (points[~left, 0] - 10 + points[~left, 1] <= 2 + 1e-9).all()
    assert left.mean() == pytest.approx(0.8, abs=0.02)
    assert np.allclose(points[left].mean(axis=0), [4 / 3, 4 / 3, 0], atol=0.05)  # uniform within a face


def test_farthest_points_of_a_mesh_are_of_its_surface_too() -> None:
    points = sample(L_SHAPE, 64, "farthest")
    assert (points[:, 2] == 0).all()
    assert len(np.unique(points, axis=0)) == 64


def test_a_mesh_without_area_is_the_cloud_of_its_vertices() -> None:
    line = Geometry(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float64), np.array([[0, 1, 2], [0, 0, 1]]))
    assert line.triangles is not None
    assert sample_surface(line.points, line.triangles, 8) is None
    assert set(sample(line, 6, "random")[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("points", "code"),
    [
        (np.zeros((0, 3), "<f4"), "degenerate"),
        (np.ones((1, 3), "<f4"), "degenerate"),
        (np.full((100, 3), 0.1, "<f4"), "degenerate"),
        (np.array([[0, 0, 0], [1, np.nan, 0]], "<f4"), "non_finite"),
        (np.array([[0, 0, 0], [1, np.inf, 0]], "<f8"), "non_finite"),
        (np.array([[0, 0, 0], [1e300, 0, 0]], "<f8"), "non_finite"),
        (np.zeros((5, 4), "<f4"), "wrong_shape"),
        (np.zeros((3,), "<f4"), "wrong_shape"),
        (np.ones((100, 3), "u1"), "wrong_dtype"),
        (np.ones((100, 3), ">f4"), "wrong_dtype"),
        (blob(201), "too_many_points"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.shape),
)
def test_what_has_no_shape_or_no_sense_is_refused(points: Array, code: str) -> None:
    with pytest.raises(InputError) as refused:
        decode_item(npy(points), SPEC, Limits(points=200))
    assert refused.value.code == code
    assert ";" in refused.value.detail


def test_a_cloud_that_sampling_would_leave_without_a_shape_is_refused() -> None:
    points = np.zeros((100_000, 3), "<f4")
    points[7] = 1  # one point out of so many is hardly ever chosen
    with pytest.raises(InputError, match="all points are equal"):
        decode_array(points, SPEC)
    assert np.ptp(decode_array(points, FARTHEST)) > 0


def test_arrays_of_one_cloud_and_of_many_are_told_apart() -> None:
    one, many = blob(100), np.stack([blob(100), blob(100) * 2])
    assert decode_batch(npy(one), SPEC, Limits()).shape == (1, 64, 3)
    assert decode_batch(npy(many.astype("<f8")), SPEC, Limits()).shape == (2, 64, 3)
    assert len(decode_numbers(many.tolist(), SPEC, Limits()) or []) == 2
    assert decode_numbers([1, 2, 3], SPEC, Limits()) is None
    assert decode_numbers([[1, 2, 3], [4, 5]], SPEC, Limits()) is None
    with pytest.raises(InputError, match=r"shape \(2, 2\), the model takes \(points, 3\)"):
        decode_numbers([[1, 2], [3, 4]], SPEC, Limits())
    with pytest.raises(InputError, match="2 items, the limit is 1"):
        decode_batch(npy(many), SPEC, Limits(items=1))


def test_an_item_is_known_by_its_shape_in_both_modalities() -> None:
    image = ImageInput(height=4, width=3, channels=1)
    assert [is_item(shape, image) for shape in ((4, 3), (4, 3, 1), (2, 4, 3), (4, 3, 3))] == [True, True, False, False]
    assert [is_item(shape, SPEC) for shape in ((64, 3), (2, 3), (2, 64, 3), (64, 4))] == [True, True, False, False]


def test_an_npz_archive_gives_its_array_of_points() -> None:
    points = blob(100)
    for archive in (npz(points=points, labels=np.arange(5)), npz(anything=points), npz(arr_0=points, x=points[:3])):
        assert np.array_equal(decode_item(archive, SPEC, Limits()), decode_array(points, SPEC))


def test_fields_of_a_structured_array_are_found_by_name() -> None:
    points = blob(100)
    rows = np.zeros(100, [("red", "u1"), ("z", "<f4"), ("x", "<f4"), ("y", "<f4")])
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    assert np.array_equal(decode_item(npy(rows), SPEC, Limits()), decode_array(points, SPEC))


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (npz(a=blob(9), b=blob(9)), "none of 2 arrays is named points"),
        (npz(points=np.zeros((200_000, 3), "<f4")), "unpacks to"),
        (npz(points=blob(9)).replace(b"points.npy", b"../a/b.npy"), r"an archive with '\.\./a/b\.npy'"),
        (npz(**{f"a{number}": blob(2) for number in range(70)}), "an archive of 70 files"),
        (npz(points=blob(9))[:-30], "broken npz file"),
        (npz(points=blob(9)[None]), "send one cloud per file"),
    ],
    ids=["names", "bomb", "path", "many", "cut", "batch"],
)
def test_archives_that_are_not_one_cloud_are_refused(archive: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_item(archive, SPEC, Limits())


def test_reading_simple_formats_takes_numpy_alone() -> None:
    program = (
        "import sys\nfrom isolatent_export.inputs import Limits, decode_item\n"
        "from isolatent_export.manifest import PointCloudInput\n"
        f"decode_item({ply(blob(20))!r}, PointCloudInput(points=64), Limits())\n"
        "heavy = {'torch', 'trimesh', 'laspy', 'open3d', 'scipy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(InputError, match=r'pip install "isolatent\[clouds\]"'):
        decode_item(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", SPEC, Limits())


def skewed(count: int = 64) -> Array:
    """A cloud whose axes differ in variance and whose two ends differ along each."""
    return np.random.default_rng(3).exponential(size=(count, 3)) * (3, 2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_principal_axes_forget_rotation_mirroring_size_and_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    orthogonal = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if seed % 2:
        orthogonal[0] *= -1  # the mirror image
    moved = 7.5 * skewed() @ orthogonal + (665_171.375, 5_648_340.5, 233.5)
    np.testing.assert_allclose(decode_array(moved, PRINCIPAL), decode_array(skewed(), PRINCIPAL), atol=1e-6)


def test_principal_axes_are_ordered_and_lean_one_way_within_the_unit_sphere() -> None:
    x = decode_array(skewed(), PRINCIPAL).astype(np.float64)
    covariance = np.cov(x.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    assert (np.diff(np.diag(covariance)) < 0).all()
    assert ((x**3).sum(axis=0) > 0).all()
    assert np.linalg.norm(x, axis=1).max() == pytest.approx(1, abs=1e-6)


def test_principal_axes_are_those_of_each_cloud_of_a_batch() -> None:
    batch = np.stack([skewed(), skewed()[:, ::-1], blob(64, dtype="<f8")])
    alone = np.stack([decode_array(cloud, PRINCIPAL) for cloud in batch])
    np.testing.assert_allclose(decode_arrays(batch, PRINCIPAL), alone, atol=1e-6)


def test_points_on_a_line_have_principal_axes_too() -> None:
    line = decode_array(np.outer(np.arange(64.0) ** 2, (1, 2, 3)), PRINCIPAL)
    np.testing.assert_allclose(line[:, 1:], 0, atol=1e-6)
