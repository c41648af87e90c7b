"""GET /healthz and /readyz, for supervisors and load balancers."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve import openapi, service
from isolatent_serve.registry import Model
from isolatent_serve.schemas import Readiness, Status

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="get_health", **openapi.plain(Status))
async def get_health() -> Response:
    """200 while the process answers at all."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", operation_id="get_readiness", **openapi.plain(Readiness))
async def get_readiness(request: Request) -> Response:
    """200 once every model has been verified and is warm, with their execution providers; else 503 with Retry-After."""
    running = service.of(request)
    running.require_ready()
    body = {"status": "ready", "models": [_facts(model) for model in running.models]}
    return Response(orjson.dumps(body), media_type="application/json")


def _facts(model: Model) -> dict[str, str | None]:
    return {
        "id": model.manifest.name,
        "version": model.manifest.version,
        "provider": model.engine.provider,
        "provider_reason": model.provider_reason,
    }
