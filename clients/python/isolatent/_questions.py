"""What can be asked about inputs: how to ask, and how to read the answer. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from isolatent import _answers, _latents, _wire
from isolatent._answers import Answer
from isolatent._inputs import Item, to_item
from isolatent._wire import Call
from isolatent.types import Posterior

R = TypeVar("R")
Row = NDArray[np.float32]

_FILES = {"png": _wire.PNG, "ply": _wire.PLY}


@dataclass(frozen=True)
class Question(Generic[R]):
    """`ask` makes the request about items, `read` gives an R for each of them, in their order."""

    ask: Callable[[Sequence[Item]], Call]
    read: Callable[[Answer, Call], Iterable[R]]
    item: Callable[[object, int], Item] = to_item
    """What becomes of one input. Raises InputError."""


def posteriors(model: str | None) -> Question[Posterior]:
    """What is its posterior?"""
    return Question(partial(_wire.posteriors, model=model), _answers.posteriors)


def embeddings(model: str | None) -> Question[Row]:
    """Where is it in the latent space, (d,)?"""
    return Question(partial(_wire.embeddings, model=model), _answers.embeddings)


def reconstructions(model: str | None) -> Question[Row]:
    """What does the model keep of it, (H, W, C) or (P', 3)?"""
    return Question(partial(_wire.reconstructions, model=model), _answers.reconstructions)


def reconstruction_errors(model: str | None) -> Question[np.float32]:
    """How far is its reconstruction from it?"""
    return Question(partial(_wire.reconstructions, model=model), _answers.reconstruction_errors)


def reconstruction_file(kind: Literal["png", "ply"], model: str | None) -> Question[bytes]:
    """The same as the content of a file, for one input. Raises ValueError for a kind that there is not."""
    if kind not in _FILES:
        raise ValueError(f"kind={kind!r}, expected png or ply; for others save what reconstruct() returns")
    return Question(partial(_wire.reconstructions, model=model, accept=_FILES[kind]), _answers.file)


def decodings(model: str | None) -> Question[Row]:
    """What does the decoder make of this latent, (H, W, C) or (P', 3)?"""
    return Question(partial(_wire.decodings, model=model), _answers.decodings, _latents.to_item)


def consistencies(model: str | None, samples: int) -> Question[Row]:
    """How far does its posterior move, (2,)?"""
    return Question(partial(_wire.consistencies, model=model, samples=samples), _answers.consistencies)
