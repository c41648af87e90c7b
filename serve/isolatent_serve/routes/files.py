"""/v1/files: what batch jobs take, uploaded before. A file belongs to the key that brought it."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from isolatent_serve import service
from isolatent_serve.jobs import openapi, pages
from isolatent_serve.jobs.desk import Desk
from isolatent_serve.jobs.schemas import File, FileList
from isolatent_serve.jobs.uploads import NAME_LENGTH
from isolatent_serve.problems import Problem

router = APIRouter(tags=["jobs"])


@router.post("/v1/files", operation_id="create_file", **openapi.upload(File))
async def create_file(request: Request) -> Response:
    """Upload a zip, tar, tar.gz or Parquet file, as the whole body or as the part `file` of a form."""
    pages.require_known(request, {"filename"})
    if len(request.query_params.get("filename", "")) > NAME_LENGTH:
        raise Problem("invalid_option", f"filename: expected at most {NAME_LENGTH} characters; send a shorter one")
    row = await desk_of(request).uploads.take(request, owner_of(request))
    return answer(File.of(row), 201, {"Location": f"/v1/files/{row.id}"})


@router.get("/v1/files", operation_id="list_files", **openapi.listing(FileList))
async def list_files(request: Request) -> Response:
    """Uploaded files, the newest first."""
    page = pages.read(request)
    rows = await desk_of(request).files(owner_of(request), page.most, page.before)
    data = [File.of(row) for row in rows[: page.size]]
    return answer(FileList(data=data, next_page_token=page.next_token(rows)))


@router.get("/v1/files/{file}", operation_id="get_file", **openapi.one("file", File))
async def get_file(request: Request) -> Response:
    """One uploaded file: what is known of it."""
    return answer(File.of(await desk_of(request).file(owner_of(request), request.path_params["file"])))


@router.delete("/v1/files/{file}", operation_id="delete_file", **openapi.removal("file"))
async def delete_file(request: Request) -> Response:
    """Delete an uploaded file that no job needs any more."""
    await desk_of(request).remove_file(owner_of(request), request.path_params["file"])
    return Response(status_code=204)


def desk_of(request: Request) -> Desk:
    """The files and jobs of the service that answers `request`."""
    desk = service.of(request).jobs
    assert desk
    return desk


def owner_of(request: Request) -> str:
    """Whose files and jobs the request is about: the name of its key, or "" where keys are not asked for."""
    return str(request.scope["state"].get("key", ""))


def answer(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`body` as JSON."""
    return Response(body.model_dump_json(), status, headers, "application/json")
