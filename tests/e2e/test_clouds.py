"""A folder of mixed real scans and meshes becomes a served encoder with the commands of the guide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from e2e_support import command
from isolatent import Client
from isolatent_export.bundle import Bundle
from isolatent_export.inputs import Limits, decode_item
from isolatent_train.run import Trained
from isolatent_train.service import service

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

SUFFIXES = {".ply", ".pcd", ".off", ".obj", ".stl", ".xyz", ".glb", ".las", ".laz", ".npy", ".npz"}


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of every geometry file there is, and two broken ones."""
    place = tmp_path_factory.mktemp("clouds") / "mixed"
    for name in ("first", "second"):
        (place / name).mkdir(parents=True)
    files = [file for file in sorted((data_dir / "formats").glob("*/*")) if file.suffix in SUFFIXES]
    for index, file in enumerate(files):
        (place / ("first", "second")[index % 2] / f"{index}-{file.name}").write_bytes(file.read_bytes())
    for name in ("assimp_invalid_OutOfMemory.off", "lfs_pointer_tet.ply"):
        (place / "second" / name).write_bytes((data_dir / "hostile" / "meshes" / name).read_bytes())
    return place


@pytest.mark.data
def test_a_folder_of_scans_becomes_a_served_encoder(folder: Path, tmp_path: Path) -> None:
    small = ["model.channels=[8,16]", "model.latent=8", "model.grid=6", "model.folding=8", "data.points=64"]
    quick = ["training.epochs=2", "training.batch_size=16", "transforms=cloud-any"]
    settings = [f"--set={setting}" for setting in (*small, *quick)]
    trained = command(tmp_path, "train", "clouds", "--data", f"clouds:{folder}", *settings)
    assert "2 of " in trained.stderr
    assert "second/lfs_pointer_tet.ply" in trained.stderr
    command(tmp_path, "evaluate", "runs/clouds")
    command(tmp_path, "export", "runs/clouds")
    command(tmp_path, "verify", "bundles/clouds")
    scans = sorted((folder / "first").iterdir())
    bundle = tmp_path / "bundles" / "clouds"
    with service([bundle]) as url, Client(url) as client:
        embeddings = client.embed(scans)
        rebuilt = client.reconstruct(scans[0])
    assert rebuilt.shape == (36, 3)
    spec = Bundle.open(bundle).manifest.input
    clouds = np.stack([decode_item(scan.read_bytes(), spec, Limits()) for scan in scans])
    # Repeated points are equally near to others: which of them are the neighbours is for each engine to choose.
    distinct = [len(np.unique(cloud, axis=0)) == 64 for cloud in clouds]
    assert sum(distinct) > 20
    np.testing.assert_allclose(embeddings[distinct], _means(bundle, clouds[distinct]), atol=1e-3)


def _means(
    bundle: Path, clouds: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The posterior means that the training framework gives."""
    with torch.inference_mode():
        return Trained.open(bundle).model.encode(torch.from_numpy(clouds)).mean.numpy()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clouds", "--data", "clouds:nowhere"], "nowhere"),
        (["shapes", "--set", "model.net=conv"], "set model.net=folding or dgcnn"),
        (["digits", "--set", "transforms=cloud"], "kinds that fit are affine"),
        (["shapes", "--set", "data.points=2"], "data.points"),
        (["modelnet10", "--data", "modelnet:nowhere.h5"], "nowhere.h5"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused = command(tmp_path, "train", *arguments, expected=1)
    assert message in refused.stderr
    assert refused.stderr.startswith("isolatent: error: ")
    assert len(refused.stderr.splitlines()) == 1
