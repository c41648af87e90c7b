"""Downstream accuracy: a linear classifier on frozen posterior means."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation strengths C to choose from."""

Array = NDArray[Any]


def probe_accuracy(train: tuple[Array, Array], test: tuple[Array, Array]) -> float:
    """Accuracy in 0..1 on `test` of logistic regression fitted on `train`, each (features (N, d), labels (N,)).

    C is chosen on the last fifth of train, then the probe is fitted on all of it.
    """
    features, labels = train
    cut = len(features) * 4 // 5
    scores = {
        strength: _fit(strength, features[:cut], labels[:cut]).score(features[cut:], labels[cut:])
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda strength: scores[strength])
    return float(_fit(best, features, labels).score(*test))


def _fit(strength: float, features: Array, labels: Array) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(features, labels)
