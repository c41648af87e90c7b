"""Distances between diagonal Gaussians: m and v (..., d) are means and variances, sums run over d, in float64.

Every term is written as a sum of squares or a log1p, so that posteriors that nearly agree lose no digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[Any]


def wasserstein2(m1: Numbers, v1: Numbers, m2: Numbers, v2: Numbers) -> NDArray[np.float64]:
    """sqrt(|m1 - m2|^2 + |s1 - s2|^2): Olkin & Pukelsheim 1982, whose covariances commute here."""
    squared = (m1 - m2) ** 2 + (np.sqrt(v1) - np.sqrt(v2)) ** 2
    return np.asarray(np.sqrt(np.sum(squared, -1)))


def symmetric_kl(m1: Numbers, v1: Numbers, m2: Numbers, v2: Numbers) -> NDArray[np.float64]:
    """(KL(1 || 2) + KL(2 || 1)) / 2, half of Jeffreys' divergence (1946); the logarithms cancel."""
    terms = ((v1 - v2) ** 2 + (v1 + v2) * (m1 - m2) ** 2) / (v1 * v2)
    return np.asarray(np.sum(terms, -1) / 4)


def bhattacharyya(m1: Numbers, v1: Numbers, m2: Numbers, v2: Numbers) -> NDArray[np.float64]:
    """-log of the overlap, the integral of sqrt(q1 q2): Bhattacharyya 1943, for Gaussians Kailath 1967."""
    s1, s2 = np.sqrt(v1), np.sqrt(v2)
    shape = np.log1p((s1 - s2) ** 2 / (2 * s1 * s2))  # log((v1 + v2) / (2 s1 s2))
    return np.asarray(np.sum((m1 - m2) ** 2 / (v1 + v2) / 4 + shape / 2, -1))


def _exact(of: Callable[..., NDArray[np.float64]]) -> Callable[..., NDArray[np.float64]]:
    return lambda *numbers: of(*(np.asarray(each, np.float64) for each in numbers))


METRICS: Mapping[str, Callable[..., NDArray[np.float64]]] = MappingProxyType(
    {of.__name__: _exact(of) for of in (wasserstein2, symmetric_kl, bhattacharyya)}
)
