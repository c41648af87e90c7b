"""GET /healthz and /readyz, for supervisors and load balancers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve import openapi, service
from isolatent_serve.schemas import Status

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="get_health", **openapi.plain(Status))
async def get_health() -> Response:
    """200 while the process answers at all."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", operation_id="get_readiness", **openapi.plain(Status))
async def get_readiness(request: Request) -> Response:
    """200 once every model has been verified and is warm; before that 503 with Retry-After."""
    service.of(request).require_ready()
    return Response(b'{"status":"ready"}', media_type="application/json")
