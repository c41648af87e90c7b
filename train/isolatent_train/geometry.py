"""Distances between point clouds and neighbours within one, as matrix products.

Written with matmul, topk and index_select, so that networks made of them run in ONNX Runtime with any number of clouds
and points.
"""

from __future__ import annotations

import torch
from torch import Tensor

KEYS_IN_CACHE = 2**19
"""Numbers of 8 bytes that a processor's cache holds."""


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """||l_i - r_j||^2 of points (B, P, D) and (B, Q, D): (B, P, Q), in float32 also under autocast."""
    with torch.autocast(left.device.type, enabled=False):
        centre = right.float().mean(1, keepdim=True)  # far from the origin the squares would cancel to noise
        left, right = left.float() - centre, right.float() - centre
        # One product of (l, |l|^2, 1) and (-2 r, 1, |r|^2): sums of (B, P, Q) would take most of the time.
        ours = torch.cat([left, left.square().sum(2, keepdim=True), torch.ones_like(left[:, :, :1])], 2)
        theirs = torch.cat([-2 * right, torch.ones_like(right[:, :, :1]), right.square().sum(2, keepdim=True)], 2)
        return ours @ theirs.transpose(1, 2)


def nearest(features: Tensor, count: int) -> Tensor:
    """Each point's `count` nearest by squared distance of features (B, P, D), itself among them, P >= count.

    Returns (B * P * count,) positions among the B * P points of the batch, in no particular order per point.
    """
    clouds, points = features.shape[0], features.shape[1]
    fixed = features.detach()
    places = squared_distances(fixed, fixed).topk(count, dim=2, largest=False, sorted=False).indices
    starts = torch.arange(clouds, device=features.device) * points
    return (places + starts.view(-1, 1, 1)).flatten()


def pooled(features: Tensor, places: Tensor, count: int, *, training: bool) -> Tensor:
    """The largest of each feature (B, P, C) among the `count` places that `nearest` found per point: (B, P, C).

    The same values either way; while training only the chosen ones are kept for the gradient, which is many times
    cheaper than one through all neighbours.
    """
    width = features.shape[2]
    rows = features.flatten(0, 1)
    if not training:
        return rows.index_select(0, places).view(-1, count, width).amax(1).view_as(features)
    with torch.no_grad():
        size = _rows_at_once(features, count)
        parts = zip(range(0, len(rows), size), rows.split(size), places.view(-1, count).split(size), strict=True)
        chosen = torch.cat([start + _holders(part, around - start) for start, part, around in parts])
    return rows.gather(0, chosen).view_as(features)


def _holders(rows: Tensor, places: Tensor) -> Tensor:
    """Which of rows (R, C), of those at places (N, k), holds the largest of each feature: (N, C).

    By the plain maximum of keys that begin with a feature's bits, ordered as the features are, and end with its row:
    that takes a fifth of the time of a maximum with indices.
    """
    bits = rows.float().view(torch.int32)
    ordered = bits ^ (bits >> 31 & 0x7FFFFFFF)  # of negative numbers, the larger ones have the smaller bits
    keys = (ordered.long() << 32) | torch.arange(len(rows), device=rows.device).unsqueeze(1)
    return keys.index_select(0, places.flatten()).view(*places.shape, -1).amax(1) & 0xFFFFFFFF


def covariances(points: Tensor, places: Tensor, count: int) -> Tensor:
    """The six different entries of each neighbourhood's 3 x 3 covariance: points (B, P, 3) -> (B, P, 6)."""
    rows = points.flatten(0, 1).T.contiguous()  # (3, B * P): one coordinate after the other, for speed
    around = rows.index_select(1, places).view(3, -1, count)
    x, y, z = (around - around.mean(2, keepdim=True)).unbind(0)  # (B * P, count) each
    products = [(a * b).mean(1) for a, b in ((x, x), (y, y), (z, z), (x, y), (x, z), (y, z))]
    return torch.stack(products, 1).view(points.shape[0], points.shape[1], 6)


def chamfer_distance(left: Tensor, right: Tensor) -> Tensor:
    """Mean squared distance to the nearest point of the other cloud, both directions summed: (B,).

    left (B, P, 3), right (B, Q, 3): mean_i min_j ||l_i - r_j||^2 + mean_j min_i ||l_i - r_j||^2.
    """
    with torch.no_grad():  # which points are nearest: their distances are computed again, exactly and with gradients
        distances = squared_distances(left, right)
        to_right, to_left = distances.argmin(2), distances.argmin(1)
    forward = (left - _chosen(right, to_right)).square().sum(2).mean(1)
    return forward + (right - _chosen(left, to_left)).square().sum(2).mean(1)


def _rows_at_once(features: Tensor, count: int) -> int:
    """Points of whole clouds of features (B, P, C) whose neighbours' keys fit the cache, if that matters."""
    clouds, points, width = features.shape
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        return clouds * points
    return points * max(1, KEYS_IN_CACHE // (points * count * width))


def _chosen(points: Tensor, places: Tensor) -> Tensor:
    return points.gather(1, places.unsqueeze(2).expand(-1, -1, 3))
