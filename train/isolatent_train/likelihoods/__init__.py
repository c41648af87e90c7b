"""p(x|z) of pixels or points given what the decoder puts out.

A new likelihood is one new file beside bernoulli.py and one line in `build_likelihood`.
"""

from __future__ import annotations

from isolatent_train.config import LikelihoodSection
from isolatent_train.likelihoods.bernoulli import Bernoulli
from isolatent_train.likelihoods.chamfer import Chamfer
from isolatent_train.likelihoods.logistic import DiscretisedLogistic
from isolatent_train.likelihoods.protocol import Likelihood

__all__ = ["Bernoulli", "Chamfer", "DiscretisedLogistic", "Likelihood", "build_likelihood"]


def build_likelihood(section: LikelihoodSection) -> Likelihood:
    """The likelihood that a configuration names."""
    if section.kind == "logistic":
        return DiscretisedLogistic()
    if section.kind == "chamfer":
        return Chamfer(section.scale)
    return Bernoulli(dynamic=section.binarize == "dynamic")
