"""The synchronous client. What to send is in _wire, what came back in _answers, when to try again in _retry."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self

import httpx2
import numpy as np
from numpy.typing import NDArray

from isolatent import __version__, _answers, _latents, _wire
from isolatent._answers import Answer
from isolatent._errors import InputError, IsolatentError, ServiceUnavailableError
from isolatent._inputs import Input, Item, is_one, to_item, to_items
from isolatent._latents import Latents
from isolatent._options import Options
from isolatent._retry import Attempts
from isolatent.types import Model, Posterior

logger = logging.getLogger("isolatent")

_FILES = {"png": _wire.PNG, "ply": _wire.PLY}


class Client:
    """A connection pool to one service. Close it, or use it in a `with` block; threads may share it.

    base_url and api_key come from ISOLATENT_BASE_URL and ISOLATENT_API_KEY when not given; without either, the
    address is where `isolatent serve` listens by default. `timeout` bounds one request in seconds, all its attempts
    and waits together. A request that fails in passing (no connection, 408, 429, 502, 503, 504) is repeated up to
    `max_retries` times. An `http_client` passed in is used as it is and not closed.

    An input is a path, the bytes of a file or a binary file object, of a picture, point cloud or mesh; a PIL image, or
    a uint8 array (H, W) or (H, W, C) of pixels; a point cloud or mesh of Open3D or trimesh, or a float32 or float64
    array (M, 3) of points. `model` may be left out when the service has one model.

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
    ) -> None:
        self._options = Options.resolve(base_url, api_key, timeout, max_retries)
        self._owns_http = http_client is None
        self._http = http_client or httpx2.Client()
        self._headers = {"User-Agent": _wire.user_agent(__version__)}

    @property
    def base_url(self) -> str:
        """The address of the service."""
        return self._options.base_url

    def posterior(self, input: Input, model: str | None = None) -> Posterior:  # noqa: A002 (the API's own word)
        """The posterior of one input: mean (d,), variance (d,) float32 and kl in nats."""
        call = _wire.posteriors([_single(input, "posteriors() or embed()")], model)
        return _answers.posteriors(self._send(call), call)[0]

    def posteriors(
        self, inputs: Input | Iterable[Input], model: str | None = None, *, batch_size: int = 64
    ) -> list[Posterior]:
        """The posteriors of one or many inputs, in their order, at most `batch_size` to a request.

        An array is one input or a batch by its axes, see `embed`.
        """
        calls = (_wire.posteriors(batch, model) for batch in _batches(inputs, batch_size))
        return [posterior for call in calls for posterior in _answers.posteriors(self._send(call), call)]

    def embed(
        self, inputs: Input | Iterable[Input], model: str | None = None, *, batch_size: int = 64
    ) -> NDArray[np.float32]:
        """The embeddings (N, d) float32 of one or many inputs, in their order, at most `batch_size` to a request.

        One input gives (1, d), none (0, d). An iterable is read no further than the batch in hand, so a generator
        may be longer than memory. A uint8 array (H, W), or (H, W, C) with C = 1 or 3, is one picture, any other a
        batch along its first axis, (N, H, W) or (N, H, W, C). A float array (M, 3) is one point cloud, (N, M, 3) are
        N; clouds of different sizes go in a list.
        """
        calls = (_wire.embeddings(batch, model) for batch in _batches(inputs, batch_size))
        rows = [_answers.embeddings(self._send(call), call) for call in calls]
        return np.concatenate(rows) if rows else np.empty((0, self._latent_size(model)), np.float32)

    def reconstruct(self, input: Input, model: str | None = None) -> NDArray[np.float32]:  # noqa: A002
        """What the model keeps of one input: the decoder's output for the posterior mean, float32.

        Of a picture, pixels (H, W, C) in 0..1; of a point cloud, points (P', 3) in the frame that the model sees, which
        after the normalization `unit_sphere` is centred on the origin and has radius 1.
        """
        call = _wire.reconstructions([_single(input, "one call for each")], model)
        return _answers.reconstruction(self._send(call), call)

    def reconstruct_file(
        self,
        input: Input,  # noqa: A002
        kind: Literal["png", "ply"],
        model: str | None = None,
    ) -> bytes:
        """The reconstruction of one input as the content of a file: 8-bit PNG of a picture, binary PLY of a cloud.

        Raises NotAcceptableError where the model reconstructs the other of the two.
        """
        if kind not in _FILES:
            raise ValueError(f"kind={kind!r}, expected png or ply; for others save what reconstruct() returns")
        call = _wire.reconstructions([_single(input, "one call for each")], model, _FILES[kind])
        return _answers.file(self._send(call), call)

    def decode(self, latents: Latents, model: str | None = None, *, batch_size: int = 64) -> NDArray[np.float32]:
        """What the decoder makes of latents (N, d), or of one (d,), in their order: float32.

        Pixels (N, H, W, C) in 0..1, or points (N, P', 3) in the frame that the model sees; one latent gives N = 1. At
        most `batch_size` go to a request.
        """
        calls = (_wire.decodings(batch, model) for batch in _groups(_latents.to_items(latents), batch_size))
        return np.concatenate([_answers.decodings(self._send(call), call) for call in calls])

    def consistency(
        self,
        inputs: Input | Iterable[Input],
        model: str | None = None,
        *,
        samples: int = 5,
        batch_size: int = 64,
    ) -> NDArray[np.float32]:
        """How far the posteriors of one or many inputs move under the model's own transformations, (N, 2) float32.

        The first column is the mean KL(q(z|x~) || q(z|x)) in nats over `samples` transformed copies, 1 to 32; the
        second that KL divided by the one between different inputs, so that models compare. Raises
        UnprocessableInputError for a model without transformations.
        """
        calls = (_wire.consistencies(batch, model, samples) for batch in _batches(inputs, batch_size))
        rows = [_answers.consistencies(self._send(call), call) for call in calls]
        return np.concatenate(rows) if rows else np.empty((0, 2), np.float32)

    def models(self) -> list[Model]:
        """The models that the service offers."""
        call = _wire.models()
        return _answers.models(self._send(call), call)

    def model(self, name: str) -> Model:
        """One model of the service. Raises NotFoundError, whose message lists the names there are."""
        call = _wire.model(name)
        return _answers.model(self._send(call), call)

    def ready(self) -> bool:
        """Whether every model is verified and warm, asked once. Raises APIConnectionError when nothing answers."""
        try:
            self._send(_wire.ready(), max_retries=0)
        except ServiceUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Close the connections. A client that was passed in stays open."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        """The client itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """The address; never the key."""
        return f"Client({self.base_url!r})"

    def _latent_size(self, model: str | None) -> int:
        if model is not None:
            return self.model(model).latent_size
        match self.models():
            case [one]:
                return one.latent_size
            case several:
                names = ", ".join(each.id for each in several)
                raise InputError(f"no inputs and no model= to tell the width of their embeddings; there are: {names}")

    def _send(self, call: _wire.Call, max_retries: int | None = None) -> Answer:
        """The service's yes to `call`, after as many attempts as it takes and time allows."""
        retries = self._options.max_retries if max_retries is None else max_retries
        attempts = Attempts(timeout=self._options.timeout, max_retries=retries)
        while True:
            outcome = self._attempt(call, attempts)
            if isinstance(outcome, Answer):
                return outcome
            wait = attempts.wait_after(outcome)
            if wait is None:
                raise outcome
            logger.info("%s %s: trying again in %.2f s after: %s", call.method, call.path, wait, outcome)
            time.sleep(wait)

    def _attempt(self, call: _wire.Call, attempts: Attempts) -> Answer | IsolatentError:
        """One exchange: the yes, or what went wrong. The whole answer is read before the deadline."""
        url = self.base_url + call.path
        extensions = attempts.extensions()
        request = self._http.build_request(
            call.method,
            url,
            params=call.params,
            headers=self._headers | self._options.authorization | {"Accept": call.accept} | call.headers,
            content=call.content,
            files=list(call.parts) or None,
            extensions=extensions,
        )
        started = time.monotonic()
        try:
            response = self._http.send(request, stream=True, follow_redirects=False)
            try:
                content = b"".join(attempts.within(response.iter_bytes()))
            finally:
                response.close()
        except httpx2.RequestError as error:
            return _answers.no_answer(error, url, self._options.timeout, call)
        answer = Answer(url, response.status_code, response.headers, content)
        elapsed = time.monotonic() - started
        logger.debug("%s %s: %d in %.3f s, request %s", call.method, url, answer.status, elapsed, answer.request_id)
        return answer if response.is_success else _answers.refusal(answer, call)


def _single(value: Any, instead: str) -> Item:
    if not is_one(value):
        raise InputError(f"a {type(value).__name__} of several inputs; use {instead}, or pass one input")
    return to_item(value)


def _batches(inputs: Input | Iterable[Input], batch_size: int) -> Iterator[tuple[Item, ...]]:
    return _groups(to_items(inputs), batch_size)


def _groups(items: Iterable[Item], batch_size: int) -> Iterator[tuple[Item, ...]]:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, expected 1 or more")
    return _wire.batches(items, batch_size)
