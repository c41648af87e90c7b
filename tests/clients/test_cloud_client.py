"""Point clouds through the client and the commands, against a real service that holds an image model too."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isolatent import Client, NotAcceptableError, UnprocessableInputError
from isolatent.cli import main

Array = np.ndarray[Any, np.dtype[Any]]
CLOUD, IMAGE = "tiny-cloud", "tiny"
TETRAHEDRON = (
    np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], float),
    [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]],
)


@pytest.fixture
def both(mixed_url: str) -> Iterator[Client]:
    with Client(mixed_url) as client:
        yield client


@pytest.fixture(scope="session")
def batch() -> Array:
    """Five clouds (5, 200, 3) of float32, all different."""
    return np.random.default_rng(5).normal(size=(5, 200, 3)).astype(np.float32)


@pytest.fixture
def plys(batch: Array, tmp_path: Path) -> list[Path]:
    """The clouds as files 0.ply to 4.ply."""
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 200\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    paths = [tmp_path / f"{index}.ply" for index in range(len(batch))]
    for points, path in zip(batch, paths, strict=True):
        path.write_bytes(header.encode() + points.tobytes())
    return paths


def every_kind(path: Path, points: Array) -> Iterator[object]:
    yield path
    yield path.read_bytes()
    yield io.BytesIO(path.read_bytes())
    yield points
    yield points.astype(np.float64)
    yield np.asfortranarray(points)
    npy = io.BytesIO()
    np.save(npy, points)
    yield npy.getvalue()
    yield pytest.importorskip("torch").from_numpy(points)
    yield pytest.importorskip("trimesh").PointCloud(points)
    o3d = pytest.importorskip("open3d")
    yield o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    yield o3d.t.geometry.PointCloud(points)


def test_every_kind_of_cloud_gives_the_same_posterior(both: Client, plys: list[Path], batch: Array) -> None:
    posteriors = [both.posterior(kind, CLOUD) for kind in every_kind(plys[2], batch[2])]  # type: ignore[arg-type]
    assert (posteriors[0].model, posteriors[0].mean.shape) == (CLOUD, (8,))
    assert set(posteriors) == {posteriors[0]}


def test_a_batch_a_list_and_files_give_the_same_embeddings(both: Client, plys: list[Path], batch: Array) -> None:
    alone = np.stack([both.posterior(points, CLOUD).mean for points in batch])
    for inputs in (batch, list(batch), plys, (points for points in batch), batch.astype(np.float64)):
        np.testing.assert_allclose(both.embed(inputs, CLOUD, batch_size=2), alone, atol=1e-5)


def test_clouds_of_different_sizes_go_together(both: Client, batch: Array) -> None:
    sizes = (2, 63, 64, 65, 200)
    ragged = [points[:size] for points, size in zip(batch, sizes, strict=True)]
    embedded = both.embed(ragged, CLOUD)
    np.testing.assert_allclose(embedded, [both.posterior(points, CLOUD).mean for points in ragged], atol=1e-5)


def test_coordinates_of_a_national_grid_lose_nothing(both: Client, batch: Array) -> None:
    here = batch[0].astype(np.float64)
    there = here + np.array([500_000, 5_400_000, 80])
    np.testing.assert_allclose(both.embed(there, CLOUD), both.embed(here, CLOUD), atol=1e-4)


def test_a_mesh_object_is_the_same_input_as_its_file(both: Client, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.Trimesh(*TETRAHEDRON, process=False)
    mesh.export(tmp_path / "mesh.ply")
    assert both.posterior(mesh, CLOUD) == both.posterior(tmp_path / "mesh.ply", CLOUD)
    assert both.posterior(mesh, CLOUD) != both.posterior(mesh.vertices, CLOUD)


def test_a_reconstruction_is_points_of_a_cloud_and_pixels_of_a_picture(both: Client, batch: Array) -> None:
    points = both.reconstruct(batch[0], CLOUD)
    assert (points.shape, points.dtype, points.flags.writeable) == ((49, 3), np.float32, True)
    assert both.reconstruct(np.zeros((16, 16), np.uint8), IMAGE).shape == (16, 16, 1)


def test_a_reconstruction_as_ply_holds_the_same_points(both: Client, batch: Array) -> None:
    trimesh = pytest.importorskip("trimesh")
    ply = both.reconstruct_file(batch[0], "ply", CLOUD)
    points = trimesh.load(io.BytesIO(ply), file_type="ply").vertices
    assert np.array_equal(np.asarray(points, np.float32), both.reconstruct(batch[0], CLOUD))


def test_a_file_of_the_other_kind_is_not_acceptable(both: Client, batch: Array) -> None:
    with pytest.raises(NotAcceptableError, match="model/ply"):
        both.reconstruct_file(batch[0], "png", CLOUD)
    with pytest.raises(NotAcceptableError, match="image/png"):
        both.reconstruct_file(np.zeros((16, 16), np.uint8), "ply", IMAGE)
    with pytest.raises(ValueError, match="kind='obj', expected png or ply"):
        both.reconstruct_file(batch[0], "obj", CLOUD)  # type: ignore[arg-type]


def test_the_models_tell_what_they_take(both: Client) -> None:
    assert [(model.id, model.modality) for model in both.models()] == [(IMAGE, "image"), (CLOUD, "point_cloud")]
    facts = both.model(CLOUD).input
    assert (facts["points"], facts["normalization"], facts["sampling"]) == (64, "unit_sphere", "random")


@pytest.mark.parametrize(
    ("value", "model", "code"),
    [
        (np.ones((1, 3)), CLOUD, "degenerate"),
        (np.ones((50, 3)), CLOUD, "degenerate"),
        (b"no cloud at all", CLOUD, "undecodable"),
        (np.zeros((16, 16), np.uint8), CLOUD, "wrong_"),
        (np.ones((16, 3)), IMAGE, "wrong_"),
    ],
)
def test_what_a_model_cannot_use_is_refused_with_the_reason(both: Client, value: object, model: str, code: str) -> None:
    with pytest.raises(UnprocessableInputError) as caught:
        both.posterior(value, model)  # type: ignore[arg-type]
    assert str(caught.value.code).startswith(code)
    assert caught.value.errors[0].index == 0


def test_a_mesh_whose_faces_name_no_vertices_is_refused(both: Client) -> None:
    mesh = pytest.importorskip("trimesh").Trimesh(TETRAHEDRON[0], [[0, 1, 9]], process=False)
    with pytest.raises(UnprocessableInputError):
        both.posterior(mesh, CLOUD)


def test_a_broken_file_among_others_is_named(both: Client, plys: list[Path]) -> None:
    plys[3].write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.raises(UnprocessableInputError, match="input 3 ") as caught:
        both.embed(plys, CLOUD, batch_size=2)
    assert [error.name for error in caught.value.errors] == [f"input 3 ({plys[3]})"]


@pytest.mark.parametrize("suffix", [".ply", ".npy", ".NPY"])
def test_reconstruct_writes_points(mixed_url: str, plys: list[Path], both: Client, suffix: str) -> None:
    out = plys[0].with_name(f"kept{suffix}")
    assert main(["reconstruct", str(plys[0]), "--out", str(out), "--model", CLOUD, "--url", mixed_url]) == 0
    points = np.load(out) if suffix != ".ply" else pytest.importorskip("trimesh").load(out).vertices
    assert np.array_equal(np.asarray(points, np.float32), both.reconstruct(plys[0], CLOUD))


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("kept.png", CLOUD, "the model reconstructs a point cloud; the name must end in .ply or .npy"),
        ("kept.ply", IMAGE, "the model reconstructs a picture; the name must end in .png or .npy"),
        ("kept.obj", CLOUD, "the name must end in .png or .ply or .npy"),
    ],
)
def test_reconstruct_into_the_wrong_kind_of_file_is_one_line_that_names_the_right(
    mixed_url: str, plys: list[Path], pngs: list[Path], name: str, model: str, message: str, capsys: Any
) -> None:
    source, out = {CLOUD: plys, IMAGE: pngs}[model][0], plys[0].with_name(name)
    assert main(["reconstruct", str(source), "--out", str(out), "--model", model, "--url", mixed_url]) == 1
    assert capsys.readouterr().err == f"isolatent: error: --out {out}: {message}\n"
    assert not out.exists()


def test_the_commands_take_cloud_files(mixed_url: str, plys: list[Path], both: Client, capsys: Any) -> None:
    at = ["--model", CLOUD, "--url", mixed_url]
    out = plys[0].with_name("all.npz")
    assert main(["embed", str(plys[0].with_name("?.ply")), "--out", str(out), *at]) == 0
    with np.load(out) as file:
        np.testing.assert_allclose(file["embedding"], both.embed(plys, CLOUD), atol=1e-5)
    capsys.readouterr()
    assert main(["posterior", str(plys[0]), "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == pytest.approx(both.posterior(plys[0], CLOUD).mean)


def test_models_shows_what_each_takes(mixed_url: str, capsys: Any) -> None:
    assert main(["models", "--url", mixed_url]) == 0
    rows = [line.split()[:5] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [[IMAGE, "1", "image", "16x16x1", "8"], [CLOUD, "1", "point_cloud", "64x3", "8"]]
