"""The asynchronous client, for asyncio: the methods of Client, to be awaited. How it sends is in _async."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx2
import numpy as np
from numpy.typing import NDArray

from isolatent import _answers, _base, _chunks, _latents, _questions, _wire
from isolatent._async import AsyncDriver
from isolatent._backends import Backend
from isolatent._chunks import OnError, Work
from isolatent._errors import IsolatentError, ServiceUnavailableError
from isolatent._files import AsyncFiles
from isolatent._inputs import Input
from isolatent._jobs_async import AsyncJobs
from isolatent._latents import Latents
from isolatent._progress import Progress
from isolatent.types import Model, Posterior


class AsyncClient(_base.BaseClient):
    """Client for asyncio: the same options and methods, awaited, and `async for` over the `iter_` ones.

    Close it with `await client.close()`, or use it in an `async with` block. One client may be used in several event
    loops, one after the other or at once (`asyncio.run` again and again): each has its own connections, which close
    with it. Inputs may come from an asynchronous generator too. Files are read in threads; a generator runs on the
    event loop. A call that is cancelled leaves nothing behind.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
        backend: Backend = "isolatent",
    ) -> None:
        super().__init__(base_url, api_key, timeout, max_retries, backend)
        self._driver = AsyncDriver(self._dialect, self._options, http_client)
        self._files = AsyncFiles(self._driver)
        self._jobs = AsyncJobs(self._driver, self._files)

    @property
    def jobs(self) -> AsyncJobs:
        """Jobs over many files, which the service does on its own."""
        return self._jobs

    @property
    def files(self) -> AsyncFiles:
        """Files that the service keeps for jobs."""
        return self._files

    async def posterior(self, input: Input, model: str | None = None) -> Posterior:  # noqa: A002 (the API's own word)
        """The posterior of one input: mean (d,), variance (d,) float32 and kl in nats."""
        ask = _chunks.one(input, _questions.posteriors(model), "posteriors() or embed()")
        return (await self._driver.solve(ask))[0]

    async def posteriors(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
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
        return [posterior for chunk in await self._driver.collect(work, progress, list) for posterior in chunk]

    @overload
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> AsyncIterator[tuple[int, Posterior]]: ...
    @overload
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> AsyncIterator[tuple[int, Posterior | IsolatentError]]: ...
    def iter_posteriors(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[int, Any]]:
        """The places and posteriors (0, p), (1, p), ... of many inputs, while the next ones are under way.

        No more is in memory than twice `concurrency` requests, however many inputs there are. With on_error="item" an
        input that is refused, or whose request fails for good, has the IsolatentError in the place of its result, and
        the others go on; what would be the same for every input (address, key, model) is raised.
        """
        return self._driver.each(Work(_questions.posteriors(model), inputs, batch_size, concurrency, on_error))

    async def embed(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
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
        parts = await self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_embeddings(await self._model(model))

    @overload
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]: ...
    @overload
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> AsyncIterator[tuple[int, NDArray[np.float32] | IsolatentError]]: ...
    def iter_embeddings(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[int, Any]]:
        """The places and embeddings (d,) float32 of many inputs, while the next ones are under way.

        `on_error` and memory are as in `iter_posteriors`.
        """
        return self._driver.each(Work(_questions.embeddings(model), inputs, batch_size, concurrency, on_error))

    async def reconstruct(self, input: Input, model: str | None = None) -> NDArray[np.float32]:  # noqa: A002
        """What the model keeps of one input: the decoder's output for the posterior mean, float32.

        Of a picture, pixels (H, W, C) in 0..1; of a point cloud, points (P', 3) in the frame that the model sees, which
        after the normalization `unit_sphere` is centred on the origin and has radius 1.
        """
        ask = _chunks.one(input, _questions.reconstructions(model), "reconstructions()")
        return (await self._driver.solve(ask))[0]

    async def reconstructions(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
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
        parts = await self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_reconstructions(await self._model(model))

    @overload
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]: ...
    @overload
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: Literal["item"],
    ) -> AsyncIterator[tuple[int, NDArray[np.float32] | IsolatentError]]: ...
    def iter_reconstructions(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
        model: str | None = None,
        *,
        batch_size: int = 64,
        concurrency: int = 4,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[int, Any]]:
        """The places and reconstructions (H, W, C) or (P', 3) float32 of many inputs, while the next are under way.

        `on_error` and memory are as in `iter_posteriors`.
        """
        return self._driver.each(Work(_questions.reconstructions(model), inputs, batch_size, concurrency, on_error))

    async def reconstruct_file(
        self,
        input: Input,  # noqa: A002
        kind: Literal["png", "ply"],
        model: str | None = None,
    ) -> bytes:
        """The reconstruction of one input as the content of a file: 8-bit PNG of a picture, binary PLY of a cloud.

        Raises NotAcceptableError where the model reconstructs the other of the two.
        """
        ask = _chunks.one(input, _questions.reconstruction_file(kind, model), "one call for each")
        return (await self._driver.solve(ask))[0]

    async def decode(
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
        parts = await self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_reconstructions(await self._model(model))

    async def consistency(
        self,
        inputs: Input | Iterable[Input] | AsyncIterable[Input],
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
        parts = await self._driver.collect(work, progress, np.stack)
        return _base.joined(parts) if parts else _base.no_consistencies()

    async def models(self) -> list[Model]:
        """The models that the service offers."""
        call = _wire.models()
        return _answers.models(await self._driver.send(call), call)

    async def model(self, name: str) -> Model:
        """One model of the service. Raises NotFoundError, whose message lists the names there are."""
        call = _wire.model(name)
        return _answers.model(await self._driver.send(call), call)

    async def ready(self) -> bool:
        """Whether every model is verified and warm, asked once. Raises APIConnectionError when nothing answers."""
        try:
            await self._driver.send(_wire.ready(), max_retries=0)
        except ServiceUnavailableError:
            return False
        return True

    async def close(self) -> None:
        """Close the connections. An `http_client` that was passed in stays open."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        """The client itself; leaving the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def _model(self, name: str | None) -> Model:
        return _base.the_one(await self.models()) if name is None else await self.model(name)
