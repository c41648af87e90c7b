"""Requests about files and jobs as plain values. No I/O."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from isolatent._wire import JSON, Call, quoted
from isolatent.types import StoredFile

JobInput: TypeAlias = "str | os.PathLike[str] | StoredFile | Mapping[str, str]"
"""What a job runs over: the path of a folder, archive or Parquet file here, which is uploaded; an uploaded file or its
id; or {"path": ...}, a path or pattern on the service's own machine, below a root that the service was started with."""

PAGE = 100
_FILE_ID = re.compile(r"file-[0-9a-f]{32}")
_NDJSON = "application/x-ndjson"


def reference(given: JobInput) -> dict[str, str] | None:
    """What the service is told of an input that is there already; None for a path here."""
    if isinstance(given, StoredFile):
        return {"file": given.id}
    if isinstance(given, Mapping):
        return dict(given)
    return {"file": given} if isinstance(given, str) and _FILE_ID.fullmatch(given) else None


def upload(filename: str, media_type: str) -> Call:
    """Store a file, which is the body."""
    name = filename.encode("utf-8", "replace").decode()
    return Call("POST", "/v1/files", params={"filename": name}, headers={"Content-Type": media_type})


def files(page_token: str | None) -> Call:
    """Ask for a page of the stored files."""
    return Call("GET", "/v1/files", params=_page(page_token))


def file(file_id: str) -> Call:
    """Ask about one stored file."""
    return Call("GET", f"/v1/files/{quoted(file_id)}")


def delete_file(file_id: str) -> Call:
    """Delete a stored file."""
    return Call("DELETE", f"/v1/files/{quoted(file_id)}", accept="*/*")


def create(
    given: Mapping[str, str],
    model: str | None,
    outputs: Sequence[str],
    format: str,  # noqa: A002 (the API's own word)
    samples: int | None,
    metadata: Mapping[str, str] | None,
    key: str,
) -> Call:
    """Make a job. Repeating the request with the same key makes no second one."""
    body: dict[str, Any] = {"input": dict(given), "format": format}
    options = {"model": model, "outputs": list(outputs), "samples": samples, "metadata": dict(metadata or {})}
    body |= {name: value for name, value in options.items() if value not in (None, [], {})}
    headers = {"Content-Type": JSON, "Idempotency-Key": key}
    return Call("POST", "/v1/jobs", headers=headers, content=json.dumps(body).encode())


def jobs(page_token: str | None, state: str | None) -> Call:
    """Ask for a page of jobs, newest first."""
    return Call("GET", "/v1/jobs", params=_page(page_token) | ({"state": state} if state else {}))


def job(job_id: str, timeout: float | None = None) -> Call:
    """Ask about one job."""
    return Call("GET", _path(job_id), timeout=timeout)


def cancel(job_id: str) -> Call:
    """End a job; what is finished stays."""
    return Call("POST", f"{_path(job_id)}/cancel")


def delete_job(job_id: str) -> Call:
    """Delete a job that is over, with its results."""
    return Call("DELETE", _path(job_id), accept="*/*")


def parts(job_id: str) -> Call:
    """Ask for the list of finished parts."""
    return Call("GET", f"{_path(job_id)}/results")


def part(job_id: str, index: int) -> Call:
    """Ask for the content of one part."""
    return Call("GET", f"{_path(job_id)}/results/{index}", accept="*/*")


def errors(job_id: str) -> Call:
    """Ask for the inputs that have no results, a line each."""
    return Call("GET", f"{_path(job_id)}/errors", accept=_NDJSON)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quoted(job_id)}"


def _page(page_token: str | None) -> dict[str, str]:
    return {"page_size": str(PAGE)} | ({"page_token": page_token} if page_token else {})
