"""GET /metrics, for Prometheus and what reads its format."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve import metrics, openapi, service

router = APIRouter(tags=["health"])


@router.get("/metrics", operation_id="get_metrics", **openapi.text("numbers in Prometheus' text format"))
async def get_metrics(request: Request) -> Response:
    """Requests, latencies by stage, queues, batches, rejections, models and their execution providers."""
    running = service.of(request)
    running.tell_metrics()
    return Response(running.metrics.render(), headers={"Content-Type": metrics.MEDIA_TYPE})
