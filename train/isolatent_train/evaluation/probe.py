"""Downstream accuracy: a linear classifier on frozen posterior means."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation strengths C to choose from."""

EXAMPLES = 20_000
"""Training examples used at most; more are drawn from, the same for every model."""

ITERATIONS = 2000

ORDER_SEED = 1959

Array = NDArray[Any]

Classifier = Callable[[float], Any]
"""Inverse regularisation strength C -> an estimator of scikit-learn."""


@dataclass(frozen=True)
class Probe:
    """What a linear probe found: accuracy in 0..1, or None with a note that says why there is none."""

    accuracy: float | None
    examples: int
    """Training examples it was fitted on."""
    note: str | None = None


def logistic(strength: float) -> Any:
    """Logistic regression: the field's probe of images."""
    return LogisticRegression(C=strength, max_iter=ITERATIONS)


def linear_svm(strength: float) -> Any:
    """A linear support vector machine, one against the rest: the field's probe of point clouds."""
    return LinearSVC(C=strength, dual="auto", max_iter=ITERATIONS, random_state=ORDER_SEED)


PROBES: dict[str, Classifier] = {"image": logistic, "point_cloud": linear_svm}
"""Modality -> its classifier."""


def linear_probe(
    train: tuple[Array, Array], test: tuple[Array, Array], *, classifier: Classifier = logistic, limit: int = EXAMPLES
) -> Probe:
    """A linear classifier of standardised features, each part being (features (N, d), labels (N,)).

    The examples are shuffled, the first `limit` used, C chosen on the last fifth of them, then all of them fitted.
    """
    chosen = sample(len(train[0]), limit)
    features, labels = train[0][chosen], train[1][chosen]
    if not (np.isfinite(features).all() and np.isfinite(test[0]).all()):
        return Probe(None, 0, "the encoder's outputs are not all finite numbers; train again")
    if len(np.unique(labels)) < 2:
        return Probe(None, 0, "the training split has one class only; evaluate with --data SPEC that has several")
    strength = _choose(classifier, features, labels)
    fitted, converged = _fit(classifier, strength, features, labels)
    note = None if converged else f"the fit at C = {strength:g} did not converge in {ITERATIONS} iterations"
    return Probe(float(fitted.score(*test)), len(features), note)


def sample(count: int, limit: int = EXAMPLES) -> Array:
    """Positions of at most `limit` of `count` examples in a shuffled order, the same every time."""
    return np.random.default_rng(ORDER_SEED).permutation(count)[:limit]


def _choose(classifier: Classifier, features: Array, labels: Array) -> float:
    cut = len(features) * 4 // 5
    if len(np.unique(labels[:cut])) < 2:
        return 1.0  # too few examples to choose with
    scores = {
        strength: _fit(classifier, strength, features[:cut], labels[:cut])[0].score(features[cut:], labels[cut:])
        for strength in STRENGTHS
    }
    return max(STRENGTHS, key=lambda strength: scores[strength])


def _fit(classifier: Classifier, strength: float, features: Array, labels: Array) -> tuple[Any, bool]:
    """The fitted classifier, and whether the fit converged."""
    fitted = make_pipeline(StandardScaler(), classifier(strength))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted.fit(features, labels)
    return fitted, not any(issubclass(each.category, ConvergenceWarning) for each in caught)
