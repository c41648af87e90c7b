"""The synchronous client. What it asks is in _questions, how it sends in _sync; _async_client is its twin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx2
import numpy as np
from numpy.typing import NDArray

from isolatent import _answers, _base, _chunks, _latents, _questions, _wire
from isolatent._backends import Backend
from isolatent._chunks import OnError, Work
from isolatent._errors import IsolatentError, ServiceUnavailableError
from isolatent._files import Files
from isolatent._inputs import Input
from isolatent._jobs import Jobs
from isolatent._latents import Latents
from isolatent._progress import Progress
from isolatent._sync import Driver
from isolatent.types import Model, Posterior


class Client(_base.BaseClient):
    """A connection pool to one service. Close it, or use it in a `with` block; threads may share it.

    base_url and api_key come from ISOLATENT_BASE_URL and ISOLATENT_API_KEY when not given; without either, the
    address is where `isolatent serve` listens by default. `timeout` bounds one request in seconds, all its attempts
    and waits together. A request that fails in passing (no connection, 408, 429, 502, 503, 504) is repeated up to
    `max_retries` times. An `http_client` passed in is used as it is and not closed.

    An input is a path, the bytes of a file or a binary file object, of a picture, point cloud or mesh; a PIL image, or
    a uint8 array (H, W) or (H, W, C) of pixels; a point cloud or mesh of Open3D or trimesh, or a float32 or float64
    array (M, 3) of points. `model` may be left out when the service has one model.

    Methods that take many inputs send at most `batch_size` of them in a request and have `concurrency` requests under
    way at once. They read a generator no further than twice that, and give results in input order. The first request
    that fails for good ends the call; its error has the places and names of its inputs in `indices` and `inputs`.
    `progress` is True for a line on stderr, or a function of the inputs done and of all inputs (None: not known).

    `backend` says what listens there: "isolatent" for `isolatent serve`, "torchserve" for TorchServe with a folder made
    by `isolatent torchserve`, which gives posteriors, embeddings, reconstructions and models and raises
    UnsupportedError for the rest.

    Every method that asks the service raises APIConnectionError, APITimeoutError, APIStatusError (a subclass per
    status) or APIResponseError; every method that takes inputs raises InputError for one that cannot be sent.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30,
        max_retries: int = 2,
        http_client: httpx2.Client | None = None,
        backend: Backend = "isolatent",
    ) -> None:
        super().__init__(base_url, api_key, timeout, max_retries, backend)
        self._driver = Driver(self._dialect, self._options, http_client)
        self._files = Files(self._driver)
        self._jobs = Jobs(self._driver, self._files)

    @property
    def jobs(self) -> Jobs:
        """Jobs over many files, which the service does on its own."""
        return self._jobs

    @property
    def files(self) -> Files:
        """Files that the service keeps for jobs."""
        return self._files

    def posterior(self, input: Input, model: str | None = None) -> Posterior:  # noqa: A002 (the API's own word)
        """The posterior of one input: mean (d,), variance (d,) float32 and kl in nats."""
        ask = _chunks.one(input, _questions.posteriors(model), "posteriors() or embed()")
        return self._driver.solve(ask)[0]

    def posteriors(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        progress: Progress = False,
    ) -> list[Posterior]:
        """The posteriors of one or many inputs, in their order.

        An array is one input or a batch by its axes, see `embed`.
        """
        work = Work(_questions.posteriors(model), inputs, batch_size, concurrency)
        return [posterior for chunk in self._driver.collect(work, progress, list) for posterior in chunk]

    @overload
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[tuple[int, Posterior]]: ...
    @overload
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> Iterator[tuple[int, Posterior | IsolatentError]]: ...
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[int, Any]]:
        """The places and posteriors (0, p), (1, p), ... of many inputs, while the next ones are under way.

        No more is in memory than twice `concurrency` requests, however many inputs there are. With on_error="item" an
        input that is refused, or whose request fails for good, has the IsolatentError in the place of its result, and
        the others go on; what would be the same for every input (address, key, model) is raised.
        """
        return self._driver.each(Work(_questions.posteriors(model), inputs, batch_size, concurrency, on_error))

    def embed(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """The embeddings (N, d) float32 of one or many inputs, in their order.

        One input gives (1, d), none (0, d). A uint8 array (H, W), or (H, W, C) with C = 1 or 3, is one picture, any
        other a batch along its first axis, (N, H, W) or (N, H, W, C). A float array (M, 3) is one point cloud,
        (N, M, 3) are N; clouds of different sizes go in a list.
        """
        work = Work(_questions.embeddings(model), inputs, batch_size, concurrency)
        parts = self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_embeddings(self._model(model))

    @overload
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[tuple[int, NDArray[np.float32]]]: ...
    @overload
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> Iterator[tuple[int, NDArray[np.float32] | IsolatentError]]: ...
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[int, Any]]:
        """The places and embeddings (d,) float32 of many inputs, while the next ones are under way.

        `on_error` and memory are as in `iter_posteriors`.
        """
        return self._driver.each(Work(_questions.embeddings(model), inputs, batch_size, concurrency, on_error))

    def reconstruct(self, input: Input, model: str | None = None) -> NDArray[np.float32]:  # noqa: A002
        """What the model keeps of one input: the decoder's output for the posterior mean, float32.

        Of a picture, pixels (H, W, C) in 0..1; of a point cloud, points (P', 3) in the frame that the model sees, which
        after the normalization `unit_sphere` is centred on the origin and has radius 1.
        """
        ask = _chunks.one(input, _questions.reconstructions(model), "reconstructions()")
        return self._driver.solve(ask)[0]

    def reconstructions(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """The reconstructions of one or many inputs, in their order: (N, H, W, C) or (N, P', 3) float32.

        An array is one input or a batch by its axes, see `embed`.
        """
        work = Work(_questions.reconstructions(model), inputs, batch_size, concurrency)
        parts = self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_reconstructions(self._model(model))

    @overload
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[tuple[int, NDArray[np.float32]]]: ...
    @overload
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> Iterator[tuple[int, NDArray[np.float32] | IsolatentError]]: ...
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[int, Any]]:
        """The places and reconstructions (H, W, C) or (P', 3) float32 of many inputs, while the next are under way.

        `on_error` and memory are as in `iter_posteriors`.
        """
        return self._driver.each(Work(_questions.reconstructions(model), inputs, batch_size, concurrency, on_error))

    def reconstruct_file(
        self,
        input: Input,  # noqa: A002
        kind: Literal["png", "ply"],
        model: str | None = None,
    ) -> bytes:
        """The reconstruction of one input as the content of a file: 8-bit PNG of a picture, binary PLY of a cloud.

        Raises NotAcceptableError where the model reconstructs the other of the two.
        """
        ask = _chunks.one(input, _questions.reconstruction_file(kind, model), "one call for each")
        return self._driver.solve(ask)[0]

    def decode(
        self,
        latents: Latents,
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """What the decoder makes of latents (N, d), or of one (d,), in their order: float32.

        Pixels (N, H, W, C) in 0..1, or points (N, P', 3) in the frame that the model sees; one latent gives N = 1.
        """
        work = Work(_questions.decodings(model), _latents.each(latents), batch_size, concurrency)
        parts = self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_reconstructions(self._model(model))

    def consistency(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        samples: int = 5,
        batch_size: int = 64,
        concurrency: int = 4,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """How far the posteriors of one or many inputs move under the model's own transformations, (N, 2) float32.

        The first column is the mean KL(q(z|x~) || q(z|x)) in nats over `samples` transformed copies, 1 to 32; the
        second that KL divided by the one between different inputs, so that models compare. Raises
        UnprocessableInputError for a model without transformations.
        """
        work = Work(_questions.consistencies(model, samples), inputs, batch_size, concurrency)
        parts = self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_consistencies()

    def models(self) -> list[Model]:
        """The models that the service offers."""
        call = _wire.models()
        return _answers.models(self._driver.send(call), call)

    def model(self, name: str) -> Model:
        """One model of the service. Raises NotFoundError, whose message lists the names there are."""
        call = _wire.model(name)
        return _answers.model(self._driver.send(call), call)

    def ready(self) -> bool:
        """Whether every model is verified and warm, asked once. Raises APIConnectionError when nothing answers."""
        try:
            self._driver.send(_wire.ready(), max_retries=0)
        except ServiceUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Close the connections. An `http_client` that was passed in stays open."""
        self._driver.close()

    def __enter__(self) -> Self:
        """The client itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def _model(self, name: str | None) -> Model:
        return _base.the_one(self.models()) if name is None else self.model(name)
