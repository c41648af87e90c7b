"""/v2: the Open Inference Protocol, on the same models, decoders and engines as /v1. Errors are {"error": ...}."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_export.inputs import InputError
from isolatent_serve import at_once, bodies, laps, results, service
from isolatent_serve.laps import Laps
from isolatent_serve.problems import Problem, at
from isolatent_serve.protocol import metadata, openapi, outputs, requests, schemas
from isolatent_serve.registry import Model
from isolatent_serve.service import Service

router = APIRouter(tags=["open inference protocol"])

_INLINE_BYTES = 16 * 2**10  # reading, or writing, this much JSON costs less than handing it to another thread


@router.get("/v2", operation_id="get_protocol_server", **openapi.plain(schemas.ServerMetadata))
@router.get("/v2/", include_in_schema=False)
async def get_server() -> Response:
    """What the server is."""
    return _json(metadata.server())


@router.get("/v2/health/live", operation_id="get_protocol_live", **openapi.plain(schemas.Live))
async def get_live() -> Response:
    """200 while the process answers at all."""
    return _json({"live": True})


@router.get("/v2/health/ready", operation_id="get_protocol_ready", **openapi.plain(schemas.Ready))
async def get_ready(request: Request) -> Response:
    """200 once every model has been verified and is warm; before that 503 with Retry-After."""
    service.of(request).require_ready()
    return _json({"ready": True})


@router.get(
    "/v2/models/{model}",
    operation_id="get_protocol_model",
    **openapi.of_model(schemas.ModelMetadata, "model"),
)
@router.get(
    "/v2/models/{model}/versions/{version}",
    operation_id="get_protocol_model_version",
    **openapi.of_model(schemas.ModelMetadata, "model", "version"),
)
async def get_model(request: Request) -> Response:
    """What a model takes and gives."""
    return _json(metadata.model(_model(request).manifest))


@router.get(
    "/v2/models/{model}/ready",
    operation_id="get_protocol_model_ready",
    **openapi.of_model(schemas.ModelReady, "model"),
)
@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    operation_id="get_protocol_model_version_ready",
    **openapi.of_model(schemas.ModelReady, "model", "version"),
)
async def get_model_ready(request: Request) -> Response:
    """200 once this model has been verified and is warm; before that 503 with Retry-After."""
    model = _model(request)
    service.of(request).require_open()
    model.require_ready()
    return _json({"name": model.manifest.name, "ready": True})


@router.post(
    "/v2/repository/index",
    operation_id="list_protocol_models",
    **openapi.listing(list[schemas.IndexEntry], schemas.IndexRequest),
)
async def list_models(request: Request) -> Response:
    """All served models, as Triton lists them."""
    running = service.of(request)
    wanted = schemas.IndexRequest()
    try:
        wanted = requests.read(await bodies.read(request, running.settings.limits), schemas.IndexRequest)
    except Problem as problem:
        if problem.code != "empty_body":
            raise
    entries = [_entry(model) for model in running.models]
    return _json([entry for entry in entries if entry["state"] == "READY" or not wanted.ready])


@router.post("/v2/models/{model}/infer", operation_id="create_protocol_inference", **openapi.inference("model"))
@router.post(
    "/v2/models/{model}/versions/{version}/infer",
    operation_id="create_protocol_version_inference",
    **openapi.inference("model", "version"),
)
async def infer(request: Request) -> Response:
    """Outputs for one tensor of items: read, parse, decode, run, write. Raises Problem."""
    running = service.of(request)
    bodies.require_uncompressed(request)
    watch = laps.of(request, running.metrics)
    body = await bodies.read(request, running.settings.limits)
    watch.done("read")
    try:
        model = _model(request)
        model.require_ready()
        request.state.model = model.manifest.name
        return await _run(request, running, model, await _parse(request, running, model, body), watch)
    except InputError as error:
        raise at("/input", error) from None


async def _parse(request: Request, running: Service, model: Model, body: bytes) -> requests.Parsed:
    length = requests.header_length(request.headers.get(outputs.HEADER_LENGTH), body)
    arguments = body, length, outputs.shapes(model.manifest), running.settings.limits.inputs
    if length > _INLINE_BYTES or len(body) > at_once.COPIED_BYTES:
        return await running.decoder.call(requests.parse, *arguments)
    return requests.parse(*arguments)


async def _run(request: Request, running: Service, model: Model, parsed: requests.Parsed, watch: Laps) -> Response:
    manifest = model.manifest
    names = [wanted.name for wanted in parsed.wanted]
    compute, shapes = outputs.compute(model.bundle, names)
    with model.engine.expecting():
        decoded = await running.decoder.decode(parsed.inputs, manifest.input)
    watch.done("decode")
    request.state.inputs = decoded.count
    results.require_answerable(decoded.count, shapes, running.settings.limits.decoded_bytes)
    _require_all(decoded.errors)
    computed = await model.engine.run(compute, decoded.array)
    watch.done("model")
    result = results.collect(decoded, {name: computed[name] for name in names}, shapes)
    _require_all(result.errors)
    write = partial(outputs.write, result.tensors, parsed.wanted, manifest, parsed.id)
    costly = sum(tensor.nbytes for tensor in result.tensors.values()) > _INLINE_BYTES
    response = await running.decoder.call(write) if costly else write()
    watch.done("write")
    return response


def _require_all(errors: dict[int, InputError]) -> None:
    """Raise the problem of the first failed item: an answer of the protocol has no place for errors of items."""
    if errors:
        index = min(errors)
        more = f" ({len(errors)} items are bad)" if len(errors) > 1 else ""
        raise Problem(errors[index].code, f"item {index} of {metadata.INPUT}: {errors[index].detail}{more}")


def _model(request: Request) -> Model:
    """The model, and version, that the path names. Raises Problem `model_not_found`."""
    model = service.of(request).models.find(request.path_params["model"])
    version = request.path_params.get("version", model.manifest.version)
    if version != model.manifest.version:
        detail = f"no version {version[:100]!r} of model {model.manifest.name}; served is {model.manifest.version}"
        raise Problem("model_not_found", detail)
    return model


def _entry(model: Model) -> dict[str, Any]:
    state = {"state": "READY", "reason": ""}
    if not model.engine.ready:
        state = {"state": "UNAVAILABLE", "reason": "being verified"}
    return {"name": model.manifest.name, "version": model.manifest.version, **state}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
