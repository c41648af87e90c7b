"""The models of a service, by name: their facts, their engines, and how they become ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from isolatent_export import Bundle, BundleError, Manifest
from isolatent_export.runtime import Device, OnnxRuntime
from isolatent_export.verify import load_verified
from isolatent_serve.batching import CHUNK
from isolatent_serve.engine import Engine
from isolatent_serve.parser import POINT_CLOUD_READERS
from isolatent_serve.problems import Problem
from isolatent_serve.settings import Settings

RETRY_SECONDS = 1

_PUBLIC = (
    "input",
    "latent",
    "reconstruction_shape",
    "reconstruction_error",
    "objective",
    "family",
    "metrics",
    "transforms",
)
"""Members of the manifest that clients are told."""


class Model:
    """One bundle and the engine that runs it."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.engine = Engine(bundle.manifest.name, queue_items=settings.queue_items, queue_bytes=settings.queue_bytes)

    @property
    def manifest(self) -> Manifest:
        """The bundle's facts."""
        return self.bundle.manifest

    async def start(self, device: Device, threads: int) -> None:
        """Load, verify and warm the model on its own thread. Raises BundleError when it must not be served."""
        await self.engine.start(lambda: _load(self.bundle, device, threads))

    def require_ready(self) -> None:
        """Raise Problem `not_ready` until `start` has finished."""
        if not self.engine.ready:
            raise not_ready(f"model {self.manifest.name} is being verified; try again in {RETRY_SECONDS} s")

    def public(self) -> dict[str, Any]:
        """What /v1/models says: OpenAI's members first, then the manifest's."""
        facts = self.manifest.public()
        return {
            "id": self.manifest.name,
            "object": "model",
            "created": int(self.manifest.created.timestamp()),
            "owned_by": "isolatent",
            "version": self.manifest.version,
            "modality": self.manifest.modality,
            "provider": self.engine.provider,
            "ready": self.engine.ready,
            **{name: facts[name] for name in _PUBLIC},
        }


class Registry:
    """The served models in the order in which they were named."""

    def __init__(self, bundles: Iterable[Bundle], settings: Settings) -> None:
        """Raises BundleError when two bundles have one name, or the files that one takes cannot be read."""
        self._models: dict[str, Model] = {}
        for bundle in bundles:
            _require_readers(bundle)
            name = bundle.manifest.name
            if name in self._models:
                raise BundleError(
                    f"{bundle.path} and {self._models[name].bundle.path} are both named {name}; "
                    "serve one of them, or export one under another name"
                )
            self._models[name] = Model(bundle, settings)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    @property
    def ready(self) -> bool:
        """Whether every model is verified and warm."""
        return all(model.engine.ready for model in self)

    def find(self, name: str | None) -> Model:
        """The model called `name`, or the only one. Raises Problem `model_required` or `model_not_found`."""
        served = ", ".join(self._models) or "none"
        if name is None:
            if len(self._models) != 1:
                raise Problem("model_required", f"name one of the served models: {served}")
            return next(iter(self))
        if name not in self._models:
            raise Problem("model_not_found", f"no model {name[:100]!r}; served are: {served}")
        return self._models[name]


def not_ready(detail: str) -> Problem:
    """The problem of a request that came too early."""
    return Problem("not_ready", detail, headers={"Retry-After": str(RETRY_SECONDS)})


def _require_readers(bundle: Bundle) -> None:
    missing = [name for name in POINT_CLOUD_READERS if find_spec(name) is None]
    if bundle.manifest.modality == "point_cloud" and missing:
        raise BundleError(
            f"{bundle.path} takes point clouds, which need {', '.join(missing)}; "
            'run: pip install "isolatent[clouds,serve]"'
        )


def _load(bundle: Bundle, device: Device, threads: int) -> OnnxRuntime:
    runtime = load_verified(bundle, device=device, threads=threads)
    one = bundle.golden().input[:1]
    for count in (1, CHUNK):  # the first run at a size allocates its memory
        mean, _ = runtime.encode(np.repeat(one, count, axis=0))
        runtime.decode(mean)
    return runtime
