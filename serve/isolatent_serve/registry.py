"""The models of a service, by name: their facts, their engines, how they become ready and take each other's place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from isolatent_export import Bundle, BundleError, Manifest
from isolatent_export.runtime import CudaOptions, Device, OnnxRuntime
from isolatent_export.verify import load_verified
from isolatent_serve import consistency
from isolatent_serve.engine import Engine, OnFailure
from isolatent_serve.metrics import Metrics
from isolatent_serve.parser import POINT_CLOUD_READERS
from isolatent_serve.problems import Problem
from isolatent_serve.settings import Settings

log = logging.getLogger("isolatent_serve")

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

    def __init__(self, bundle: Bundle, settings: Settings, metrics: Metrics, on_failure: OnFailure) -> None:
        self.bundle = bundle
        self._cuda = CudaOptions(graphs=settings.cuda_graphs, memory_bytes=settings.gpu_megabytes * 2**20)
        self.engine = Engine(
            bundle.manifest.name,
            queue_items=settings.queue_items,
            queue_bytes=settings.queue_bytes,
            stuck_seconds=settings.stuck_seconds,
            delay_seconds=settings.batch_delay_ms / 1000,
            metrics=metrics,
            on_failure=on_failure,
        )

    @property
    def manifest(self) -> Manifest:
        """The bundle's facts."""
        return self.bundle.manifest

    @property
    def provider_reason(self) -> str | None:
        """Why this execution provider, in one sentence; None before the model is ready."""
        return self.engine.reason

    async def start(self, device: Device, threads: int) -> None:
        """Load, verify and warm the model on its own thread. Raises BundleError when it must not be served."""
        await self.engine.start(lambda: _load(self.bundle, device, threads, self._cuda))

    def require_ready(self) -> None:
        """Raise Problem `not_ready` until `start` has finished, and while a lost thread is replaced."""
        if not self.engine.ready:
            state = {"restarting": "loaded again", "failed": "given up"}.get(self.engine.health, "verified")
            raise not_ready(f"model {self.manifest.name} is being {state}; try again in {RETRY_SECONDS} s")

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
            "provider_reason": self.provider_reason,
            "ready": self.engine.ready,
            **{name: facts[name] for name in _PUBLIC},
        }


@dataclass(frozen=True)
class Refusal:
    """A version in the model directory that must not be served, and why. `version` is None for DIR/NAME itself."""

    version: str | None
    reason: str


class Registry:
    """The served models in the order in which they were named, or came.

    A request finds its model once, and keeps it: the next one may find a newer version. `complete` is False as long
    as models may still come that were there when the service started.
    """

    def __init__(self, bundles: Iterable[Bundle], settings: Settings, metrics: Metrics, on_failure: OnFailure) -> None:
        """`on_failure` hears of models whose thread is lost for good.

        Raises BundleError when two bundles have one name, or the files that one takes cannot be read.
        """
        self._metrics = metrics
        self._on_failure = on_failure
        self.complete = settings.models is None
        self._settings = settings
        self._models: dict[str, Model] = {}
        self.refused: dict[str, list[Refusal]] = {}
        """By name, the versions that would be served if they were good, the newest first."""
        for bundle in bundles:
            name = bundle.manifest.name
            if name in self._models:
                raise BundleError(
                    f"{bundle.path} and {self._models[name].bundle.path} are both named {name}; "
                    "serve one of them, or export one under another name"
                )
            self._models[name] = self.make(bundle)

    def __iter__(self) -> Iterator[Model]:
        return iter(list(self._models.values()))

    @property
    def ready(self) -> bool:
        """Whether there is a model, and every one is verified and warm."""
        return self.complete and bool(self._models) and all(model.engine.ready for model in self)

    def find(self, name: str | None) -> Model:
        """The model called `name`, or the only one.

        Raises Problem `model_required` or `model_not_found`, or `not_ready` while it may still come.
        """
        if name in self._models:
            return self._models[name]
        if not self.complete:
            raise not_ready(f"models are being verified; try again in {RETRY_SECONDS} s")
        if name is None and len(self._models) == 1:
            return next(iter(self))
        served = ", ".join(self._models) or "none"
        if name is None:
            raise Problem("model_required", f"name one of the served models: {served}")
        refused = "".join(f" ({each.reason})" for each in self.refused.get(name, []))
        raise Problem("model_not_found", f"no model {name[:100]!r}{refused}; served are: {served}")

    def make(self, bundle: Bundle) -> Model:
        """A model that is not served yet, nor started. Raises BundleError when the files it takes cannot be read."""
        _require_readers(bundle)

        def fail(error: Exception) -> None:
            if model in self:  # what has been replaced may fail
                self._on_failure(error)

        model = Model(bundle, self._settings, self._metrics, fail)
        return model

    def put(self, model: Model) -> Model | None:
        """Serve `model`, which is ready, from now on; returns the one whose place it takes."""
        name = model.manifest.name
        before, self._models[name] = self._models.get(name), model
        self.announce(model, before)
        return before

    def announce(self, model: Model, before: Model | None = None) -> None:
        """Tell the log and the metrics that `model` serves now."""
        name, version, provider = model.manifest.name, model.manifest.version, model.engine.provider
        after = f", after version {before.manifest.version}" if before else ""
        log.info("model %s: version %s is ready on %s%s", name, version, provider, after)
        self._metrics.model(name, version, provider or "", model.provider_reason or "")

    def remove(self, name: str) -> Model:
        """Serve `name` no more; returns its model."""
        self._metrics.unloaded(name)
        return self._models.pop(name)

    def refuse(self, name: str, refusals: list[Refusal]) -> None:
        """From now on these versions of `name`, the newest first, would be served if they were good."""
        self.refused[name] = refusals
        self._metrics.refused(name, len(refusals))

    def public(self, model: Model) -> dict[str, Any]:
        """What /v1/models says about one of them."""
        refused = self.refused.get(model.manifest.name, [])
        return model.public() | {"refused": [asdict(refusal) for refusal in refused]}


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


def _load(bundle: Bundle, device: Device, threads: int, cuda: CudaOptions) -> OnnxRuntime:
    runtime = load_verified(bundle, device=device, threads=threads, cuda=cuda)
    consistency.remember(bundle)
    runtime.warm(bundle.golden().input[:1])
    return runtime
