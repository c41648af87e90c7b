"""Requests as plain values: what to send for each method of the client. No I/O."""

from __future__ import annotations

import io
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import httpx2
import numpy as np
from numpy.typing import NDArray

from isolatent._errors import InputError
from isolatent._inputs import Item

SAFETENSORS = "application/x-safetensors"
NPY = "application/x-npy"
PNG = "image/png"
PLY = "model/ply"
JSON = "application/json"

BATCH_BYTES = 32 * 2**20
"""A batch is closed at this size, however few its items are; what a service accepts is commonly larger."""

Part = tuple[str, tuple[str, bytes, str]]


@dataclass(frozen=True)
class Call:
    """One request. Its body is `content` of the type in `headers`, or the multipart form of `parts`, or none."""

    method: str
    path: str
    accept: str = JSON
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    parts: tuple[Part, ...] = ()
    items: tuple[Item, ...] = ()
    """The inputs in the body, to name them in errors."""
    request_id: str = ""
    """The name that the client gives the request."""
    timeout: float | None = None
    """Seconds for all its attempts together, where it is not to have those of the client."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(item.name for item in self.items)

    @property
    def indices(self) -> tuple[int, ...]:
        """The places of the inputs among all those of the caller."""
        return tuple(item.index for item in self.items)


def user_agent(version: str) -> str:
    """Name and version of this client and what it runs on."""
    return f"isolatent/{version} python/{platform.python_version()} httpx2/{httpx2.__version__}"


def ready() -> Call:
    """Ask whether every model is verified and warm."""
    return Call("GET", "/readyz", accept="*/*")


def models() -> Call:
    """Ask for all models."""
    return Call("GET", "/v1/models")


def model(name: str) -> Call:
    """Ask for one model."""
    return Call("GET", f"/v1/models/{quoted(name)}")


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def posteriors(items: Sequence[Item], model: str | None) -> Call:
    """Ask for the posteriors of `items`."""
    return _inference("/v1/posteriors", items, model, SAFETENSORS)


def embeddings(items: Sequence[Item], model: str | None) -> Call:
    """Ask for the embeddings of `items`."""
    return _inference("/v1/embeddings", items, model, SAFETENSORS)


def reconstructions(items: Sequence[Item], model: str | None, accept: str = SAFETENSORS) -> Call:
    """Ask for the reconstructions of `items`; `accept` may be the type of a file for a single one."""
    return _inference("/v1/reconstructions", items, model, accept)


def decodings(items: Sequence[Item], model: str | None) -> Call:
    """Ask what the decoder makes of `items`, which are latents. Raises InputError unless they have one length."""
    latents = [np.asarray(item.data) for item in items]
    for item, latent in zip(items, latents, strict=True):
        if latent.shape != latents[0].shape:
            what = f"{item.name} has {len(latent)} numbers, {items[0].name} {len(latents[0])}"
            raise InputError(f"{what}; pass latents of one model", inputs=(item.name,), indices=(item.index,))
    return _bulk("/v1/decodings", items, _params(model), _npy(np.stack(latents)), SAFETENSORS)  # (N, d)


def consistencies(items: Sequence[Item], model: str | None, samples: int) -> Call:
    """Ask how far the posteriors of `items` move under the model's own transformations, `samples` times each."""
    call = _inference("/v1/consistency", items, model, SAFETENSORS)
    return replace(call, params=call.params | {"samples": str(samples)})


def batches(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """`items` in groups of `size`, fewer where they are large; read from `items` no further than the group in hand."""
    group: list[Item] = []
    weight = 0
    for item in items:
        if group and weight + item.size > BATCH_BYTES:
            yield tuple(group)
            group, weight = [], 0
        group.append(item)
        weight += item.size
        if len(group) == size:
            yield tuple(group)
            group, weight = [], 0
    if group:
        yield tuple(group)


def _inference(path: str, items: Sequence[Item], model: str | None, accept: str) -> Call:
    """A POST of `items`: arrays alike as one npy array (N, H, W[, C]) or (N, M, 3), all else as a form, a part each."""
    params = _params(model)
    arrays = [item.data for item in items if isinstance(item.data, np.ndarray)]
    if len(arrays) == len(items) > 1 and len({(array.shape, array.dtype) for array in arrays}) == 1:
        return _bulk(path, items, params, _npy(np.stack(arrays)), accept)
    return Call("POST", path, accept, params, parts=tuple(_part(item) for item in items), items=tuple(items))


def _bulk(path: str, items: Sequence[Item], params: dict[str, str], body: bytes, accept: str) -> Call:
    return Call("POST", path, accept, params, {"Content-Type": NPY}, content=body, items=tuple(items))


def _params(model: str | None) -> dict[str, str]:
    return {} if model is None else {"model": model}


def _part(item: Item) -> Part:
    if isinstance(item.data, np.ndarray):
        return "input", (f"{item.index}.npy", _npy(item.data), NPY)
    return "input", (_file_name(item.name), item.data, "application/octet-stream")


def _file_name(name: str) -> str:
    """The last part of a path, in characters that a header carries; the folders are nobody's business."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return last.encode("utf-8", "replace").decode() or "input"


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
