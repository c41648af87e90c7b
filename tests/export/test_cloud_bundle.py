"""Bundles of point clouds: exported for any batch and any number of points, with a card and pictures of their own."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn

from isolatent_export.bundle import Bundle
from isolatent_export.manifest import Tolerance
from isolatent_export.pictures import framing, render
from isolatent_export.runtime import OnnxRuntime
from isolatent_export.verify import load_verified, verify
from support import export_untrained_cloud


class NeighbourEncoder(nn.Module):
    """What graph encoders are made of: distances by matmul, the k nearest, gathered and pooled."""

    def __init__(self, latent: int, neighbours: int = 12) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.per_point = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.head = nn.Linear(32, 2 * latent)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of q(z|x)."""
        squares = points.square().sum(dim=-1)
        distances = squares[:, :, None] + squares[:, None] - 2 * points @ points.transpose(1, 2)
        nearest = distances.topk(self.neighbours, largest=False).indices.flatten(1)  # (B, P k)
        gathered = points.gather(1, nearest[..., None].expand(-1, -1, 3))
        edges = gathered.unflatten(1, (-1, self.neighbours)) - points[:, :, None]  # (B, P, k, 3)
        covariance = (edges.transpose(2, 3) @ edges).flatten(2)
        features = self.per_point(torch.cat([points, covariance], dim=-1)).amax(dim=1)
        mean, log_variance = self.head(features).chunk(2, dim=-1)
        return mean, log_variance


def test_all_engines_agree_with_torch_on_real_clouds(cloud_bundle_path: Path) -> None:
    bundle = Bundle.open(cloud_bundle_path)
    found = verify(bundle, torchscript=True, pt2=True)
    assert found.problems == ()
    assert len(found.parity) == 9
    assert bundle.manifest.tolerance == Tolerance(mean=1e-3, log_variance=1e-3, reconstruction=1e-3)
    assert bundle.manifest.reconstruction_shape == (49, 3)


def test_the_encoder_takes_any_number_of_points_in_any_batch(cloud_bundle_path: Path) -> None:
    runtime = load_verified(Bundle.open(cloud_bundle_path))
    for batch, points in ((1, 64), (3, 64), (2, 10), (7, 500)):
        mean, log_variance = runtime.encode(np.random.default_rng(0).normal(size=(batch, points, 3)).astype(np.float32))
        assert mean.shape == log_variance.shape == (batch, 8)
    assert runtime.decode(mean).shape == (7, 49, 3)


def test_neighbour_graphs_agree_at_numbers_of_points_that_were_not_traced(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = NeighbourEncoder(8).eval()
    bundle = export_untrained_cloud(tmp_path / "graph", encoder=encoder, weights=encoder.state_dict())
    runtime = OnnxRuntime(bundle)
    for points in (12, 50, 64, 300):
        clouds = np.random.default_rng(points).normal(size=(3, points, 3)).astype(np.float32)
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(clouds))
        for got, wanted in zip(runtime.encode(clouds), expected, strict=True):
            assert np.abs(got - wanted.numpy()).max() < 1e-3


def test_an_encoder_that_needs_its_number_of_points_keeps_it(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64 * 3, 4)

        def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
            found = self.head(points.flatten(1))
            return found, found

    bundle = export_untrained_cloud(tmp_path / "flat", encoder=Flat().eval(), weights={}, latent=4)
    assert onnx.load(bundle.file("encoder.onnx")).graph.input[0].type.tensor_type.shape.dim[1].dim_value == 64
    assert onnx.load(bundle.file("encoder.onnx")).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_card_speaks_of_clouds(cloud_bundle_path: Path) -> None:
    card = (cloud_bundle_path / "README.md").read_text()
    assert "3D point clouds (64 points)" in card
    assert "Reconstructions are 49 points" in card
    assert "isolatent embed scan.ply" in card
    assert "image" not in card.replace("![inputs", "")
    with Image.open(cloud_bundle_path / "reconstructions.png") as picture:
        assert picture.size == (12 * 130 + 2, 2 * 130 + 2)


def test_the_card_says_how_clouds_are_normalised(tmp_path: Path) -> None:
    bundle = export_untrained_cloud(tmp_path / "turned", normalization="principal")
    assert "turned into their principal axes" in (bundle.path / "README.md").read_text()


def test_near_points_are_drawn_over_and_darker_than_far_ones() -> None:
    azimuth, elevation = np.radians([-55, 25])  # where render looks from
    level = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth), 0])
    towards = level + np.array([0, 0, np.sin(elevation)])
    pair = np.stack([-0.9 * towards, 0.9 * towards])
    far, near, both = (render(cloud[None])[0, 48, 48].astype(int) for cloud in (pair[:1], pair[1:], pair))
    assert near.sum() < far.sum() < 3 * 255
    assert np.array_equal(both, near)
    assert np.array_equal(render(pair[None]), render(pair[None, ::-1]))


def test_points_outside_the_picture_or_not_finite_are_left_out() -> None:
    cloud = np.full((1, 4, 3), np.nan)
    cloud[0, :3] = [[9, 9, 9], [np.inf, 0, 0], [-1e300, 0, 1e300]]
    assert (render(cloud, size=32) == 255).all()


def test_clouds_in_raw_units_are_framed() -> None:
    clouds = np.random.default_rng(0).normal(size=(2, 200, 3)) * 0.001 + np.array([665_171.0, 5_648_340.0, 233.0])
    centre, reach = framing(clouds)
    pictures = render(clouds, centre=centre, reach=reach)
    assert (pictures != 255).any(axis=3).mean() > 0.05
    assert (render(clouds) == 255).all()


def test_a_hundred_clouds_are_drawn_in_a_moment() -> None:
    clouds = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 1024, 3))
    started = time.process_time()
    assert render(clouds).shape == (100, 96, 96, 3)
    assert time.process_time() - started < 3
