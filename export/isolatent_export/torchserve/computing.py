"""A dynamic batch through the model: requests for the same output run together, whatever else is in the batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from isolatent_export import outputs
from isolatent_export.outputs import Array, Graphs, Tensors
from isolatent_export.torchserve.requests import Refusal, Request

log = logging.getLogger("isolatent_export.torchserve")

CHUNK = 64
"""Items that run at once: memory stays bounded however many a request brings."""

_OUTPUTS: dict[str, Callable[[Graphs, Array], Tensors]] = {
    "posterior": outputs.posterior,
    "embedding": outputs.embedding,
    "reconstruction": outputs.reconstruction,
}


def run(graphs: Graphs, batch: Sequence[Request | Refusal]) -> list[Tensors | Refusal]:
    """The tensors of every request, none for the output `model`, in the order of the batch; refusals stay."""
    results: list[Tensors | Refusal] = [{} if isinstance(one, Request) else one for one in batch]
    for output, compute in _OUTPUTS.items():
        group = {place: one for place, one in enumerate(batch) if isinstance(one, Request) and one.output == output}
        for place, result in zip(group, _group(graphs, compute, list(group.values())), strict=True):
            results[place] = result
    return results


def _group(
    graphs: Graphs, compute: Callable[[Graphs, Array], Tensors], group: list[Request]
) -> Sequence[Tensors | Refusal]:
    if not group:
        return []
    try:
        tensors = _chunks(graphs, compute, np.concatenate([request.items for request in group]))
    except Exception:  # of whatever kind: one by one, so that one request cannot fail the others
        log.exception("%d requests failed together", len(group))
        if len(group) == 1:
            return [Refusal("internal", "the model failed on this request; TorchServe's log says why")]
        return [_group(graphs, compute, [request])[0] for request in group]
    bounds = accumulate((len(request.items) for request in group), initial=0)
    parts = [slice(*pair) for pair in pairwise(bounds)]
    return [
        _checked(request, {name: tensor[part] for name, tensor in tensors.items()})
        for request, part in zip(group, parts, strict=True)
    ]


def _chunks(graphs: Graphs, compute: Callable[[Graphs, Array], Tensors], items: Array) -> Tensors:
    parts = [compute(graphs, items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _checked(request: Request, tensors: Tensors) -> Tensors | Refusal:
    overflown = np.flatnonzero(~outputs.finite(tensors))
    if len(overflown) == 0:
        return tensors
    detail = "the model's answer overflows float32; the input is far from what the model was trained on"
    return Refusal("non_finite_output", detail, request.pointer(int(overflown[0])))
