"""GET /v1/models: what is served, with the manifest's facts and the execution provider in use."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve import openapi, service
from isolatent_serve.schemas import ModelFacts, ModelList

router = APIRouter(tags=["models"])


@router.get("/v1/models", operation_id="list_models", **openapi.plain(ModelList))
async def list_models(request: Request) -> Response:
    """All served models."""
    models = service.of(request).models
    listed = [models.public(model) for model in models]
    return Response(orjson.dumps({"object": "list", "data": listed}), media_type="application/json")


@router.get("/v1/models/{model}", operation_id="get_model", **openapi.plain(ModelFacts))
async def get_model(request: Request, model: str) -> Response:
    """One served model."""
    models = service.of(request).models
    return Response(orjson.dumps(models.public(models.find(model))), media_type="application/json")
