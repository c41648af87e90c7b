"""Answers as plain values: results for the caller, or the error that tells what went wrong. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from isolatent import _safetensors
from isolatent._errors import (
    About,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    IsolatentError,
    ItemError,
    status_error,
)
from isolatent._retry import retry_after
from isolatent._wire import PLY, PNG, SAFETENSORS, Call
from isolatent.types import Model, Posterior

_ITEM = re.compile(r"^/input/(\d{1,9})(?:/|$)")
PROBLEM = "application/problem+json"
_SHOWN = 3
"""How many inputs an error message names."""
_SIGNATURES = {PNG: b"\x89PNG\r\n\x1a\n", PLY: b"ply\n"}
"""How the files of a type begin."""


Axes = dict[str, tuple[int, ...]]
"""By the name of a tensor: the numbers of axes that it may have."""


@dataclass(frozen=True)
class Answer:
    """A whole response. Header names are matched in any case."""

    url: str
    status: int
    headers: httpx2.Headers
    content: bytes
    asked_as: str | None = None
    """The name that the client gave the request, for answers that give none."""

    @property
    def request_id(self) -> str | None:
        """The service's name for the request, as in its log."""
        return self.headers.get("x-request-id")

    @property
    def is_success(self) -> bool:
        """Whether the status says yes."""
        return self.status // 100 == 2

    @cached_property
    def safetensors(self) -> tuple[_safetensors.Tensors, dict[str, str]]:
        """The tensors and the metadata, read once. Raises ValueError where it has none."""
        return _safetensors.parse(self.content)

    @property
    def media_type(self) -> str:
        """The type of the content, without parameters."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


def posteriors(answer: Answer, call: Call) -> list[Posterior]:
    """The posteriors in the order of the inputs. Raises APIResponseError."""
    tensors, metadata = _tensors(answer, call, {"mean": (2,), "variance": (2,), "kl": (1,)})
    mean, variance, kl = tensors["mean"], tensors["variance"], tensors["kl"]
    if mean.shape != variance.shape:
        raise unexpected(answer, call, f"mean {mean.shape} and variance {variance.shape} differ in shape")
    of = metadata.get("model", ""), metadata.get("version", "")
    return [Posterior(mean[row], variance[row], float(kl[row]), *of) for row in range(len(mean))]


def embeddings(answer: Answer, call: Call) -> NDArray[np.float32]:
    """The embeddings (N, d) in the order of the inputs. Raises APIResponseError."""
    return np.array(_tensors(answer, call, {"embedding": (2,)})[0]["embedding"])  # the caller's own, writeable


def reconstructions(answer: Answer, call: Call) -> NDArray[np.float32]:
    """The reconstructions in the order of the inputs: pixels (N, H, W, C) or points (N, P', 3).

    Raises APIResponseError.
    """
    tensors, _ = _tensors(answer, call, {"reconstruction": (4, 3), "error": (1,)})
    return np.array(tensors["reconstruction"])


def reconstruction_errors(answer: Answer, call: Call) -> NDArray[np.float32]:
    """The reconstruction errors (N,) in the order of the inputs. Raises APIResponseError."""
    return np.array(_tensors(answer, call, {"error": (1,)})[0]["error"])


def decodings(answer: Answer, call: Call) -> NDArray[np.float32]:
    """The decodings in the order of the latents: pixels (N, H, W, C) or points (N, P', 3). Raises APIResponseError."""
    return np.array(_tensors(answer, call, {"decoding": (4, 3)})[0]["decoding"])


def consistencies(answer: Answer, call: Call) -> NDArray[np.float32]:
    """The columns kl and normalized (N, 2), in the order of the inputs. Raises APIResponseError."""
    tensors, _ = _tensors(answer, call, {"kl": (1,), "normalized": (1,)})
    return np.column_stack([tensors["kl"], tensors["normalized"]])


def file(answer: Answer, call: Call) -> list[bytes]:
    """The content of the one file, of the type that was asked for. Raises APIResponseError."""
    _expect_type(answer, call, call.accept)
    if not answer.content.startswith(_SIGNATURES[call.accept]):
        raise unexpected(answer, call, f"the content is no file of {call.accept}")
    return [answer.content]


def models(answer: Answer, call: Call) -> list[Model]:
    """All models. Raises APIResponseError."""
    data = json_object(answer, call).get("data")
    if not isinstance(data, list):
        raise unexpected(answer, call, "the list of models is missing")
    return [_model(facts, answer, call) for facts in data]


def model(answer: Answer, call: Call) -> Model:
    """One model. Raises APIResponseError."""
    return _model(json_object(answer, call), answer, call)


def refusal(answer: Answer, call: Call) -> APIStatusError:
    """The error for a status that is no success: what the problem document says, naming the caller's inputs."""
    problem = _problem(answer)
    errors = tuple(_item_error(entry, call) for entry in problem.get("errors") or () if isinstance(entry, Mapping))
    title = problem.get("code") or httpx2.codes.get_reason_phrase(answer.status) or "status"
    message = f"{answer.status} {title}: {_reason(problem, errors, answer, call)}"
    if answer.request_id:
        message += f" [request {answer.request_id}]"
    return status_error(answer.status)(
        message,
        status=answer.status,
        url=answer.url,
        problem=problem,
        errors=errors,
        retry_after=retry_after(answer.headers.get("retry-after")),
        **_about(call, answer),
    )


def refused_items(answer: Answer, call: Call) -> dict[int, IsolatentError]:
    """By the places of the inputs: the errors of those that an answer with on_error=item could not use.

    Raises APIResponseError.
    """
    _, metadata = answer.safetensors
    refused: dict[int, IsolatentError] = {}
    try:
        for entry in json.loads(metadata.get("errors", "[]")):
            item, position = call.items[entry["index"]], entry["index"]
            error = ItemError(item.index, str(item), f"/input/{position}", str(entry["detail"]))
            refused[item.index] = _of_one(
                error, item.name, str(entry["code"]), answer.url, answer.request_id or answer.asked_as
            )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise unexpected(answer, call, f"the errors of single inputs cannot be read ({error!r})") from None
    return refused


def item_errors(error: IsolatentError, call: Call) -> dict[int, IsolatentError]:
    """By the places of the inputs: what a refusal of the whole request says about single ones."""
    if not isinstance(error, APIStatusError):
        return {}
    names = {item.index: item.name for item in call.items}
    return {
        each.index: _of_one(each, names[each.index], error.code or "", error.url, error.request_id)
        for each in error.errors
        if each.index is not None
    }


def _of_one(error: ItemError, name: str, code: str, url: str, request_id: str | None) -> APIStatusError:
    """The error that a request with this input alone would have got."""
    status = 413 if code.startswith("too_m") else 422  # too_many_pixels, too_many_points, too_much_memory
    message = f"{status} {code}: {error}" + (f" [request {request_id}]" if request_id else "")
    return status_error(status)(
        message,
        status=status,
        url=url,
        problem={"status": status, "code": code, "detail": error.detail},
        errors=(error,),
        request_id=request_id,
        inputs=(name,),
        indices=() if error.index is None else (error.index,),
    )


def no_answer(error: httpx2.RequestError, url: str, timeout: float, call: Call) -> IsolatentError:
    """The error for a request that got no answer, or none that could be read."""
    at = f"{url}{_sent(call)}"
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        return out_of_time(url, timeout, call)
    if isinstance(error, httpx2.DecodingError | httpx2.TooManyRedirects):
        return APIResponseError(f"{at}: the answer cannot be read ({reason})", url=url, **_about(call))
    if isinstance(error, httpx2.ConnectError):
        hint = "start the service with `isolatent serve BUNDLE`, or set ISOLATENT_BASE_URL to where it runs"
        return APIConnectionError(f"cannot connect to {url}{_sent(call)} ({reason}); {hint}", url=url, **_about(call))
    return APIConnectionError(f"{at}: the connection broke ({reason}); try again", url=url, **_about(call))


def out_of_time(url: str, timeout: float, call: Call) -> APITimeoutError:
    """The error for a request that used up its time."""
    message = f"{url}{_sent(call)}: no answer within {timeout:g} s; pass a larger timeout, or send fewer inputs at once"
    return APITimeoutError(message, url=url, **_about(call))


def _tensors(answer: Answer, call: Call, axes: Axes) -> tuple[_safetensors.Tensors, dict[str, str]]:
    """The tensors named in `axes`, checked for their number of axes and one row per input."""
    _expect_type(answer, call, SAFETENSORS)
    try:
        tensors, metadata = answer.safetensors
    except ValueError as error:
        raise unexpected(answer, call, f"the tensors cannot be read ({error})") from None
    for name, counts in axes.items():
        if name not in tensors:
            raise unexpected(answer, call, f"the tensor {name!r} is missing")
        shape = tensors[name].shape
        if len(shape) not in counts or shape[0] != len(call.items):
            expected = f"{len(call.items)} rows and {' or '.join(map(str, counts))} axes"
            raise unexpected(answer, call, f"{name} {shape}, expected {expected}")
    return tensors, metadata


def _expect_type(answer: Answer, call: Call, media_type: str) -> None:
    if answer.media_type != media_type:
        raise unexpected(answer, call, f"the content is {answer.media_type or 'of no type'}, expected {media_type}")


def json_object(answer: Answer, call: Call) -> dict[str, Any]:
    """The object that a body of JSON is. Raises APIResponseError."""
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise unexpected(answer, call, "the content is no JSON object")
    return value


def _model(facts: object, answer: Answer, call: Call) -> Model:
    try:
        return Model.from_facts(facts)  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise unexpected(answer, call, f"the facts about a model are incomplete ({error})") from None


def unexpected(answer: Answer, call: Call, what: str) -> APIResponseError:
    """The error for an answer that is not what the service promises."""
    message = f"{answer.url}{_sent(call)}: {what}; is this the address of an isolatent service of this version?"
    return APIResponseError(message, url=answer.url, **_about(call, answer))


def _about(call: Call, answer: Answer | None = None) -> About:
    request_id = (answer and (answer.request_id or answer.asked_as)) or call.request_id or None
    return {"inputs": call.names, "indices": call.indices, "request_id": request_id}


def _problem(answer: Answer) -> dict[str, Any]:
    if answer.media_type != PROBLEM:
        return {}
    try:
        problem = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _reason(problem: dict[str, Any], errors: tuple[ItemError, ...], answer: Answer, call: Call) -> str:
    """What the service says is wrong, counting the inputs as the caller does and not within the request."""
    located = [error for error in errors if error.index is not None]
    if located:
        more = f"; and {len(located) - _SHOWN} more inputs" if len(located) > _SHOWN else ""
        return "; ".join(map(str, located[:_SHOWN])) + more
    about_inputs = answer.status >= 408  # below, it is about the address, the key or the options
    return _detail(problem, answer) + (f"; in a request{_sent(call)}" if about_inputs and call.items else "")


def _detail(problem: dict[str, Any], answer: Answer) -> str:
    if detail := problem.get("detail") or problem.get("title"):
        return str(detail)
    if location := answer.headers.get("location"):
        return f"{answer.url} redirects to {location}; use that address as base_url"
    return f"{answer.url} gave no reason"


def _item_error(entry: Mapping[str, Any], call: Call) -> ItemError:
    """One entry of `errors`, with the place and name of the input in the caller's own inputs."""
    pointer, detail = str(entry.get("pointer", "")), str(entry.get("detail", ""))
    found = _ITEM.match(pointer)
    position = int(found[1]) if found else 0 if pointer == "/input" and len(call.items) == 1 else -1
    if not 0 <= position < len(call.items):
        return ItemError(None, None, pointer, detail)
    item = call.items[position]
    return ItemError(item.index, str(item), pointer, detail)


def _sent(call: Call) -> str:
    """Which inputs were in the request, for a message."""
    if not call.items:
        return ""
    first, last = call.items[0], call.items[-1]
    return f" with {first}" if first is last else f" with {first} to {last}"
