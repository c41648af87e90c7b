"""/v1/files and /v1/jobs of a service that does no jobs: what would turn them on. Not in its documents."""

from __future__ import annotations

from fastapi import APIRouter

from isolatent_serve.problems import Problem

router = APIRouter(include_in_schema=False)


@router.api_route("/v1/files", methods=["GET", "POST"])
@router.api_route("/v1/files/{rest:path}", methods=["GET", "POST", "DELETE"])
@router.api_route("/v1/jobs", methods=["GET", "POST"])
@router.api_route("/v1/jobs/{rest:path}", methods=["GET", "POST", "DELETE"])
async def refuse() -> None:
    """501, with the option."""
    raise Problem("jobs_off", "this service does no batch jobs; start it with --jobs DIR, or ask who runs it")
