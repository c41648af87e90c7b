"""TorchServe as a backend: requests and answers of the service's API translated to those of TorchServe. No I/O.

The handler that `isolatent torchserve` puts into a model archive answers in the service's own formats, problems
included. What differs: one address per model instead of one per output, one part to a form, and the errors of
TorchServe itself.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import httpx2

from isolatent import _wire
from isolatent._answers import PROBLEM, Answer
from isolatent._errors import UnsupportedError
from isolatent._wire import JSON, Call

_OUTPUTS = {
    "/v1/posteriors": "posterior",
    "/v1/embeddings": "embedding",
    "/v1/reconstructions": "reconstruction",
}
_OUTPUT_HEADER = "X-Isolatent-Output"
_MODELS = "/v1/models"
_READY = "/readyz"


class TorchServe:
    """TorchServe 0.12 with archives made by `isolatent torchserve` or `isolatent export --torchserve`."""

    base_url = "http://127.0.0.1:8080"

    def request(self, call: Call) -> Call:
        """What to send for `call`. Raises UnsupportedError for what the handler cannot do."""
        if call.path == _READY:
            return replace(call, path="/ping")
        if call.path in _OUTPUTS:
            return _inference(call, _OUTPUTS[call.path])
        if call.path == _MODELS or call.path.startswith(f"{_MODELS}/"):
            name = unquote(call.path.removeprefix(_MODELS).removeprefix("/")) or None
            return _post(call, name, {"Content-Type": JSON}, json.dumps({"output": "model"}).encode())
        raise UnsupportedError(
            f"TorchServe cannot do {call.path.removeprefix('/v1/')}, only posteriors, embeddings, reconstructions and "
            "models; use a service started with: isolatent serve BUNDLE"
        )

    def answer(self, answer: Answer, call: Call) -> Answer:
        """What came back for `call`, as the service would have put it."""
        if not answer.is_success:
            return answer if answer.media_type == PROBLEM else _problem(answer)
        if call.path == _READY and _member(answer, "status") != "Healthy":
            return _refused(answer, 503, "not_ready", "not every worker of TorchServe is up")
        if call.path == _MODELS and answer.media_type == JSON:
            return replace(answer, content=b'{"data":[%s]}' % answer.content)
        return answer


def _inference(call: Call, output: str) -> Call:
    """The npy array or the one file as it is; several files as base64 in JSON, for a form carries one only."""
    headers, content = {_OUTPUT_HEADER: output, **call.headers}, call.content
    if len(call.parts) == 1:
        (_, (_, content, media_type)) = call.parts[0]
        headers["Content-Type"] = media_type
    elif call.parts:
        texts = [base64.b64encode(data).decode() for _, (_, data, _) in call.parts]
        headers["Content-Type"], content = JSON, json.dumps({"input": texts}).encode()
    return _post(call, call.params.get("model"), headers, content)


def _post(call: Call, model: str | None, headers: dict[str, str], content: bytes | None) -> Call:
    """To /invocations where no model is named: TorchServe then takes the one that it was started with, if it is one."""
    path = "/invocations" if model is None else f"/predictions/{_wire.quoted(model)}"
    return replace(call, method="POST", path=path, params={}, headers=headers, content=content, parts=())


def _problem(answer: Answer) -> Answer:
    """An error of TorchServe itself: {"code", "type", "message"}, or nothing at all for a body that is too large."""
    message = _member(answer, "message").rstrip(". ")
    match answer.status, _member(answer, "type"):
        case 404, "ModelNotFoundException" | "ModelVersionNotFoundException":
            hint = "/models at TorchServe's management address, one port further, lists what it has"
            return _refused(answer, 404, "model_not_found", f"{message}; {hint}")
        case 400, "BadRequestException" if "model_name" in message:
            hint = "TorchServe has several models, or was started with none; name one"
            return _refused(answer, 400, "model_required", hint)
        case _, "InvalidKeyException":
            return _refused(answer, 401, "invalid_key", f"{message}; pass its inference key as api_key")
        case 413, _:
            hint = "more bytes than max_request_size in TorchServe's config.properties; send fewer inputs at once"
            return _refused(answer, 413, "request_too_large", hint)
        case 500 | 507, "InternalServerException" if message == "Worker died":  # 507 where it knows of the kill
            detail = f"TorchServe answered {answer.status} {message}; it starts another one"
            return _refused(answer, 503, "worker_lost", detail)
        case 503, _:
            return _refused(answer, 503, "not_ready", f"{message}; TorchServe's log says why")
    return _refused(answer, answer.status, "", message) if message else answer


def _refused(answer: Answer, status: int, code: str, detail: str) -> Answer:
    """`answer` as a problem document."""
    document = {"status": status, "code": code, "detail": detail} if code else {"status": status, "detail": detail}
    headers = httpx2.Headers({**answer.headers, "content-type": PROBLEM})
    return replace(answer, status=status, headers=headers, content=json.dumps(document).encode())


def _member(answer: Answer, name: str) -> str:
    """A text in a JSON answer; empty where there is none."""
    try:
        value: Any = json.loads(answer.content)
    except (ValueError, RecursionError):
        return ""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
