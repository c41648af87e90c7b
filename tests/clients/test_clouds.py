"""Point clouds and meshes as inputs: which objects are taken, what is sent, and what the refusals say."""

from __future__ import annotations

import io
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isolatent import InputError
from isolatent._inputs import Item, is_one, to_item

Array = np.ndarray[Any, np.dtype[Any]]
MAP = np.array([[500_000.25, 5_400_000.125, 80.0], [500_001.0, 5_400_000.0, 81.5], [500_000.0, 5_400_002.0, 80.5]])
"""Three places in metres, as national grids give them: float32 would round them to half a metre."""


def cloud(count: int = 10, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(count).normal(size=(count, 3)).astype(dtype)


def items(clouds: Iterable[object]) -> list[Item]:
    return [to_item(value, index) for index, value in enumerate(clouds)]


def vertices(ply: object) -> Array:
    """The vertices of a PLY file, read by trimesh."""
    trimesh = pytest.importorskip("trimesh")
    assert isinstance(ply, bytes)
    read: Array = trimesh.load(io.BytesIO(ply), file_type="ply", process=False).vertices
    return np.asarray(read)


@pytest.mark.parametrize(
    ("dtype", "sent"), [("f2", "<f4"), ("f4", "<f4"), (">f4", "<f4"), ("f8", "<f8"), (">f8", "<f8")]
)
def test_points_are_sent_in_their_own_precision(dtype: str, sent: str) -> None:
    data = to_item(cloud(dtype=dtype)).data
    assert isinstance(data, np.ndarray)
    assert data.dtype == np.dtype(sent)
    assert np.array_equal(data, cloud(dtype=dtype))


@pytest.mark.parametrize(("shape", "one"), [((8, 3), True), ((8, 4), True), ((2, 8, 3), False), ((3, 3, 3), False)])
def test_a_float_array_is_one_cloud_or_a_batch_by_its_axes(shape: tuple[int, ...], one: bool) -> None:
    assert is_one(np.zeros(shape)) is one
    assert is_one(np.zeros(shape, np.float32)) is one


def test_a_batch_and_a_generator_of_clouds_become_an_item_each() -> None:
    batch = np.stack([cloud(), cloud() + 1])
    assert [np.array_equal(item.data, batch[item.index]) for item in items(batch)] == [True, True]
    assert [len(item.data) for item in items(cloud(count) for count in (5, 9, 2))] == [5, 9, 2]


def test_an_array_of_objects_or_names_is_a_list(tmp_path: Any) -> None:
    ragged = np.array([cloud(4), cloud(5)], dtype=object)
    (tmp_path / "a.xyz").write_text("0 0 0\n1 1 1\n")
    assert [len(item.data) for item in items(ragged)] == [4, 5]
    assert [item.data for item in items(np.array([str(tmp_path / "a.xyz")]))] == [b"0 0 0\n1 1 1\n"]


def test_records_with_x_y_z_are_points() -> None:
    records = np.zeros(5, [("x", "f4"), ("intensity", "f4"), ("y", "f4"), ("z", "f4")])
    records["y"] = np.arange(5)
    data = to_item(records).data
    assert isinstance(data, np.ndarray)
    assert (data.dtype, data[:, 1].tolist()) == (np.float32, [0, 1, 2, 3, 4])


def test_open3d_objects_are_their_points_or_their_mesh() -> None:
    o3d = pytest.importorskip("open3d")
    legacy = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(MAP))
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(MAP), o3d.utility.Vector3iVector([[0, 1, 2]]))
    vertices_only = o3d.geometry.TriangleMesh(mesh.vertices, o3d.utility.Vector3iVector())
    tensors = o3d.t.geometry.PointCloud(MAP)
    tensor_mesh = o3d.t.geometry.TriangleMesh.from_legacy(mesh, vertex_dtype=o3d.core.float64)
    for points in (legacy, tensors, tensors.point["positions"], vertices_only):
        assert is_one(points)
        assert np.array_equal(to_item(points).data, MAP)
    for surface in (mesh, tensor_mesh):
        assert is_one(surface)
        assert np.array_equal(vertices(to_item(surface).data), MAP)


def test_trimesh_objects_are_their_points_or_their_mesh() -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.Trimesh(MAP, [[0, 1, 2]], process=False)
    assert np.array_equal(to_item(trimesh.PointCloud(MAP)).data, MAP)
    for surface in (mesh, trimesh.Scene(mesh)):
        assert is_one(surface)
        assert np.array_equal(vertices(to_item(surface).data), MAP)


def test_objects_with_the_same_attributes_are_taken_whatever_their_library() -> None:
    like = [
        SimpleNamespace(points=MAP),
        SimpleNamespace(vertices=MAP, faces=np.empty((0, 3), int)),
        SimpleNamespace(point={"positions": MAP}),
        SimpleNamespace(vertex={"positions": MAP}),
        SimpleNamespace(xyz=MAP, points=object()),
    ]
    assert all(is_one(each) and np.array_equal(to_item(each).data, MAP) for each in like)


@pytest.mark.parametrize(("dtype", "number"), [(np.float32, b"float"), (np.float64, b"double")])
def test_a_mesh_is_a_binary_ply_in_its_own_precision(dtype: Any, number: bytes) -> None:
    mesh = SimpleNamespace(vertices=cloud(4, dtype), triangles=np.array([[0, 1, 2], [1, 2, 3]]))
    ply = to_item(mesh).data
    assert isinstance(ply, bytes)
    assert b"property " + number + b" x\n" in ply
    header, body = ply.split(b"end_header\n", 1)
    assert (b"element vertex 4\n" in header, b"element face 2\n" in header) == (True, True)
    assert body == cloud(4, dtype).tobytes() + b"".join(b"\3" + np.array(t, "<i4").tobytes() for t in mesh.triangles)


def test_tensors_of_torch_are_clouds_and_pictures_by_their_dtype() -> None:
    torch = pytest.importorskip("torch")
    points = torch.from_numpy(cloud(6, np.float32))
    assert np.array_equal(to_item(points).data, points.numpy())
    assert [item.index for item in items(torch.zeros(2, 8, 3))] == [0, 1]
    assert is_one(torch.zeros(8, 9, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"is a Tensor that cannot be read .* tensor.detach\(\)"):
        to_item(points.requires_grad_())


def test_points_that_are_not_finite_are_counted_and_the_first_is_shown() -> None:
    points = cloud(6)
    points[4, 1], points[5, 2] = np.nan, np.inf
    with pytest.raises(
        InputError, match=r"point 4 is \(.*, nan, .*\), 2 of 6 points are not finite; drop them with"
    ) as caught:
        to_item(points, 3)
    assert "input 3 is an array (6, 3) of float64" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((3, 100)), r"array \(3, 100\) of float64, expected the points \(M, 3\) of one cloud; pass array.T"),
        (np.zeros((100, 6)), r"array\[:, :3\]"),
        (np.zeros(3), "a single point: pass all points"),
        (np.zeros((0, 3)), r"with 0 points; if it was read from a file, pass the path"),
        (np.zeros((2, 2, 8, 3)), r"\(M, 3\) of one cloud"),
        (np.zeros((100, 3), int), r"of int64, expected pixels .* coordinates with array.astype\(numpy.float32\)"),
        ([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], r"is a list; pass the numbers of one input as an array"),
        (SimpleNamespace(points=np.zeros((0, 3))), "is a SimpleNamespace of points .* with 0 points; if it was read"),
        (SimpleNamespace(points=np.zeros((5, 3), int)), "expected float32 or float64"),
        (
            SimpleNamespace(points=7),
            r"is a SimpleNamespace whose points \(\) are not \(M, 3\); pass them as a float array",
        ),
        (SimpleNamespace(point={}), "SimpleNamespace without points; pass the path"),
        (SimpleNamespace(vertices=MAP, faces=np.zeros((1, 4), int)), r"faces \(1, 4\) are no triangles \(F, 3\)"),
        (SimpleNamespace(points=MAP, faces=np.zeros(4, int)), r"faces \(4,\) are no triangles"),
    ],
)
def test_what_is_no_cloud_is_refused_with_the_remedy(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        to_item(value, 3)
    assert str(caught.value).startswith("input 3 is a")
    assert len(str(caught.value)) < 400
