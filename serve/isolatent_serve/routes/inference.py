"""POST /v1/posteriors, /v1/embeddings and their like: one way from body to answer, an output each."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_export.inputs import InputError
from isolatent_serve import answers, bodies, laps, latents, openapi, options, service
from isolatent_serve.consistency import CONSISTENCY
from isolatent_serve.decoding import Decoded
from isolatent_serve.laps import Laps
from isolatent_serve.options import Options
from isolatent_serve.outputs import DECODINGS, EMBEDDINGS, POSTERIORS, RECONSTRUCTIONS, Output
from isolatent_serve.problems import at
from isolatent_serve.question import ask
from isolatent_serve.registry import Model
from isolatent_serve.schemas import ConsistencyList, DecodingList, EmbeddingList, PosteriorList, ReconstructionList
from isolatent_serve.service import Service

router = APIRouter(tags=["inference"])

OUTPUTS: dict[str, Output] = {
    "/v1/posteriors": POSTERIORS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/reconstructions": RECONSTRUCTIONS,
    "/v1/decodings": DECODINGS,
    "/v1/consistency": CONSISTENCY,
}
"""What each address below answers."""


@router.post("/v1/posteriors", operation_id="create_posteriors", **openapi.inference(POSTERIORS, PosteriorList))
async def create_posteriors(request: Request) -> Response:
    """Mean and variance of q(z|x) for each input, and its KL divergence to the prior in nats."""
    return await infer(request, POSTERIORS)


@router.post("/v1/embeddings", operation_id="create_embeddings", **openapi.inference(EMBEDDINGS, EmbeddingList))
async def create_embeddings(request: Request) -> Response:
    """The posterior mean of each input, in the request and answer shape of OpenAI's embeddings."""
    return await infer(request, EMBEDDINGS)


@router.post(
    "/v1/reconstructions",
    operation_id="create_reconstructions",
    **openapi.inference(RECONSTRUCTIONS, ReconstructionList),
)
async def create_reconstructions(request: Request) -> Response:
    """The decoder's output for each input's posterior mean, pixels in 0..1 or points, and its reconstruction error."""
    return await infer(request, RECONSTRUCTIONS)


@router.post("/v1/decodings", operation_id="create_decodings", **openapi.inference(DECODINGS, DecodingList))
async def create_decodings(request: Request) -> Response:
    """The decoder's output for each latent, pixels in 0..1 or points."""
    return await infer(request, DECODINGS)


@router.post("/v1/consistency", operation_id="create_consistency", **openapi.inference(CONSISTENCY, ConsistencyList))
async def create_consistency(request: Request) -> Response:
    """How far each input's posterior moves under the model's own transformations, in nats and normalized."""
    return await infer(request, CONSISTENCY)


async def infer(request: Request, output: Output) -> Response:
    """Answer one inference request: read, parse, decode, run, write. Raises Problem."""
    running = service.of(request)
    parse = bodies.reader(request, bodies.accepted(output))
    watch = laps.of(request, running.metrics)
    data = await bodies.read(request, running.settings.limits)
    watch.done("read")
    body = await _parse(request, running, parse, data)
    chosen = options.read(request.scope["query_string"], body.fields, output)
    model = running.models.find(chosen.model)
    options.require_dimensions(chosen, model.manifest)
    model.require_ready()
    request.state.model = model.manifest.name
    return await _run(request, running, body, chosen, model, output, watch)


async def _parse(request: Request, running: Service, parse: bodies.Reader, data: bytes) -> bodies.Body:
    arguments = (data, request.headers["Content-Type"], running.settings.limits.inputs)
    try:
        if bodies.parse_is_costly(request, data):
            return await running.decoder.call(parse, *arguments)
        return parse(*arguments)
    except InputError as error:
        raise at("/input", error) from None


async def _run(
    request: Request,
    running: Service,
    body: bodies.Body,
    chosen: Options,
    model: Model,
    output: Output,
    watch: Laps,
) -> Response:
    compute = output.prepare(model.bundle, chosen.samples)
    try:
        with model.engine.expecting():
            decoded = await _decode(running, body, model, output)
    except InputError as error:
        raise at("/input", error) from None
    watch.done("decode")
    request.state.inputs = decoded.count
    answer_bytes = running.settings.limits.decoded_bytes
    question = ask(model, output, chosen, decoded, request.headers.get("Accept"), answer_bytes)
    computed = await model.engine.run(compute, decoded.array) if len(decoded.array) else {}
    watch.done("model")
    answer = question.answer(computed)
    write = partial(answers.write, answer, question.media_type)
    response = await running.decoder.call(write) if answer.is_costly(question.media_type) else write()
    watch.done("write")
    return response


async def _decode(running: Service, body: bodies.Body, model: Model, output: Output) -> Decoded:
    if not output.of_latents:
        return await running.decoder.decode(body.inputs, model.manifest.input)
    size, limits = model.manifest.latent.size, running.settings.limits.inputs
    return await running.decoder.call(latents.decode, body.inputs, size, limits)
