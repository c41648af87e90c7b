"""/v1/jobs: posteriors of many inputs, computed in the background. A job belongs to the key that made it."""

from __future__ import annotations

import re
import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from isolatent_export import Bundle
from isolatent_serve import service
from isolatent_serve.jobs import openapi, pages, requests, results
from isolatent_serve.jobs.rows import JobRow
from isolatent_serve.jobs.schemas import Job, JobList, PartList
from isolatent_serve.problems import Problem
from isolatent_serve.routes.files import answer, desk_of, owner_of

router = APIRouter(tags=["jobs"])

LONGEST_RETRY = 10
"""Seconds after which a job may be asked for again, at most."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@router.post("/v1/jobs", operation_id="create_job", **openapi.creation(Job))
async def create_job(request: Request) -> Response:
    """Make a job of an uploaded file, or of files of the service's machine."""
    running = service.of(request)
    wanted, key = await requests.read(request, running.settings.limits)

    def bundle(name: str | None) -> Bundle:
        model = running.models.find(name)
        model.require_ready()
        request.state.model = model.manifest.name
        return model.bundle

    row, is_new = await desk_of(request).create(owner_of(request), wanted, bundle, key)
    return answer(Job.of(row), 202 if is_new else 200, {"Location": f"/v1/jobs/{row.id}", **_retry(row)})


@router.get("/v1/jobs", operation_id="list_jobs", **openapi.listing(JobList, by_state=True))
async def list_jobs(request: Request) -> Response:
    """Jobs, the newest first, all or those in one state."""
    page = pages.read(request, by_state=True)
    rows = await desk_of(request).jobs(owner_of(request), page.most, page.before, page.state)
    data = [Job.of(row) for row in rows[: page.size]]
    return answer(JobList(data=data, next_page_token=page.next_token(rows)))


@router.get("/v1/jobs/{job}", operation_id="get_job", **openapi.one("job", Job, retry=True))
async def get_job(request: Request) -> Response:
    """One job: how far it is, and when to ask again while it is not over."""
    row = await _job(request)
    return answer(Job.of(row), 200, _retry(row))


@router.delete("/v1/jobs/{job}", operation_id="delete_job", **openapi.removal("job"))
async def delete_job(request: Request) -> Response:
    """Delete a job that is over, and its results."""
    await desk_of(request).remove_job(owner_of(request), request.path_params["job"])
    return Response(status_code=204)


@router.post("/v1/jobs/{job}/cancel", operation_id="cancel_job", **openapi.one("job", Job, retry=True))
async def cancel_job(request: Request) -> Response:
    """End a job; finished parts stay. One that is over stays as it is."""
    row = await desk_of(request).cancel(owner_of(request), request.path_params["job"])
    return answer(Job.of(row), 200, _retry(row))


@router.get("/v1/jobs/{job}/results", operation_id="list_job_results", **openapi.one("job", PartList))
async def list_results(request: Request) -> Response:
    """The finished parts, while the job runs, too."""
    desk, row = desk_of(request), await _job(request)
    return answer(PartList(data=await desk.call(results.parts, desk.folder(row), row.id)))


@router.get(
    "/v1/jobs/{job}/results/{index}",
    operation_id="get_job_result",
    **openapi.part(tuple(results.MEDIA_TYPES.values())),
)
async def get_result(request: Request) -> Response:
    """One finished part, or a range of its bytes."""
    desk, row = desk_of(request), await _job(request)
    index = request.path_params["index"]
    is_number = index.isascii() and index.isdigit() and len(index) < 10
    path = await desk.call(results.part, desk.folder(row), int(index)) if is_number else None
    if path is None:
        detail = f"no finished part {index[:80]!r}; GET /v1/jobs/{row.id}/results lists those that there are"
        raise Problem("part_not_found", detail)
    facts = await desk.call(path.stat)
    _settle_range(request, facts.st_size)
    name = f"{row.id}-{path.name}"
    return FileResponse(path, media_type=results.MEDIA_TYPES[row.format], filename=name, stat_result=facts)


@router.get(
    "/v1/jobs/{job}/errors",
    operation_id="list_job_errors",
    **openapi.lines('a line {"id", "index", "code", "detail"} for each input of finished parts that failed'),
)
async def list_errors(request: Request) -> Response:
    """The inputs that failed, of all finished parts."""
    desk, row = desk_of(request), await _job(request)
    return StreamingResponse(results.errors(desk.folder(row)), media_type="application/x-ndjson")


async def _job(request: Request) -> JobRow:
    return await desk_of(request).job(owner_of(request), request.path_params["job"])


def _retry(row: JobRow) -> dict[str, str]:
    """When to ask again: the longer a job takes, the later."""
    if row.is_over:
        return {}
    age = time.time() - (row.started or row.created)
    return {"Retry-After": str(max(1, min(LONGEST_RETRY, int(age / LONGEST_RETRY))))}


def _settle_range(request: Request, size: int) -> None:
    """Leave of `Range` what is one range of a file of `size` bytes; others may be passed over, says RFC 9110.

    Raises Problem `range_not_satisfiable`.
    """
    given = request.headers.get("Range")
    if given is None:
        return
    found = _RANGE.fullmatch(given)
    first, last = found.groups() if found else ("", "")
    if (first and int(first) >= size) or (not first and last and not int(last) * size):
        detail = f"the part has {size} bytes; ask for some of these, or for all of them"
        raise Problem("range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size}"})
    if not (first or last) or (first and last and int(last) < int(first)):
        request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
