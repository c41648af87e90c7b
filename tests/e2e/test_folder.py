"""A folder of mixed real images becomes a served encoder with the commands of the guide; what is broken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_support import command
from isolatent import Client
from isolatent_train.service import service

FORMATS = ("png", "jpg", "webp", "bmp", "gif", "tif")


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 and more files in two classes: photographs in six formats, oddities that load, and broken ones."""
    place = tmp_path_factory.mktemp("folder") / "mixed"
    for name in ("first", "second"):
        (place / name).mkdir(parents=True)
    for batch, name in enumerate(("first", "second")):
        pixels = np.asarray(Image.open(data_dir / "cifar10" / f"cifar10_batch_{batch}.png")).reshape(1000, 32, 32, 3)
        for index, photo in enumerate(pixels):
            image = Image.fromarray(photo)
            (image.convert("L") if index % 7 == 0 else image).save(place / name / f"{index}.{FORMATS[index % 6]}")
    for file in sorted((data_dir / "formats" / "images").iterdir()):
        (place / "first" / file.name).write_bytes(file.read_bytes())
    for name in ("truncated_image.png", "broken_data_stream.png", "truncated_jpeg.jpg"):
        (place / "second" / name).write_bytes((data_dir / "hostile" / "images" / name).read_bytes())
    return place


@pytest.mark.data
@pytest.mark.timeout(600)
def test_a_folder_of_photographs_becomes_a_served_encoder(folder: Path, tmp_path: Path) -> None:
    small = ["model.channels=[8,16,16,16]", "model.latent=8", "training.epochs=1", "data.size=32"]
    train = ["train", "photos", "--data", f"images:{folder}", *(f"--set={setting}" for setting in small)]
    trained = command(tmp_path, *train)
    assert "truncated_image.png" in trained.stderr
    rejected = (tmp_path / "runs" / "photos" / "rejected.tsv").read_text()
    assert 2 <= len(rejected.splitlines()) - 1 <= 3
    assert "second/truncated_image.png\t" in rejected
    command(tmp_path, "evaluate", "runs/photos", "--samples", "2")
    command(tmp_path, "export", "runs/photos", "--torchserve")
    assert (tmp_path / "torchserve" / "photos" / "models" / "photos.mar").is_file()
    command(tmp_path, "verify", "bundles/photos")
    photographs = [folder / "first" / f"{index}.{FORMATS[index % 6]}" for index in range(12)]
    with service([tmp_path / "bundles" / "photos"]) as url, Client(url) as client:
        assert client.embed(photographs).shape == (12, 8)
        assert client.reconstruct(photographs[0]).shape == (32, 32, 3)


@pytest.mark.data
def test_strict_stops_at_the_first_broken_file(folder: Path, tmp_path: Path) -> None:
    stopped = command(tmp_path, "train", "photos", "--data", f"images:{folder}", "--strict", expected=1)
    assert "truncated" in stopped.stderr or "broken" in stopped.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "images:nowhere"], "nowhere"),
        (["--data", "idx:nowhere"], "nowhere"),
        (["--set", "objective.lambda=-1"], "objective.lambda"),
        (["--set", "data.size=0"], "data.size"),
        (["--set", "trainin.epochs=1"], "unknown key trainin"),
        (["--set", "training.batch_size=5000"], "fewer than one batch of 5000"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused = command(tmp_path, "train", "digits", *arguments, expected=1)
    assert message in refused.stderr
    assert refused.stderr.startswith("isolatent: error: ")
    assert len(refused.stderr.splitlines()) == 1
