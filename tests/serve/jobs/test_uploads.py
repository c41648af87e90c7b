"""POST /v1/files: what comes is kept as it is, or refused, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import select
import socket
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pyarrow
import pyarrow.parquet as parquet
import pytest

from isolatent_serve import JobSettings, Settings
from jobs_api_support import ALICE, ZIP, JobService, pictures, zipped
from serve_support import running
from soak_support import until


def tarred(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as target:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def table(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": list(files), "image": list(files.values())}), file)
    return file.getvalue()


PICTURES = pictures(3)
CONTENTS = {
    ".zip": zipped(PICTURES),
    ".tar": tarred(PICTURES),
    ".tar.gz": gzip.compress(tarred(PICTURES)),
    ".parquet": table(PICTURES),
}


def left(jobs: JobService) -> list[str]:
    """The files that are on the disk."""
    return sorted(path.name for path in (jobs.directory / "files").iterdir())


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_file_is_kept_as_it_came(alice: httpx2.Client, jobs: JobService, suffix: str) -> None:
    content = CONTENTS[suffix]
    kind = {"Content-Type": "application/octet-stream"}
    answer = alice.post("/v1/files", params={"filename": f"../x/pic{suffix}"}, content=content, headers=kind)
    assert answer.status_code == 201
    made = answer.json()
    assert made["filename"] == f"pic{suffix}"
    assert (made["bytes"], made["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert answer.headers["Location"] == f"/v1/files/{made['id']}"
    assert alice.get(answer.headers["Location"]).json() == made
    assert (jobs.directory / "files" / f"{made['id']}{suffix}").read_bytes() == content
    assert alice.delete(f"/v1/files/{made['id']}").status_code == 204
    assert alice.get(f"/v1/files/{made['id']}").json()["code"] == "file_not_found"
    assert not any(name.startswith(made["id"]) for name in left(jobs))


def test_a_form_brings_the_same_file(alice: httpx2.Client) -> None:
    content = CONTENTS[".zip"]
    made = alice.post("/v1/files", files={"file": ("pictures.zip", content)}).json()
    assert (made["filename"], made["sha256"]) == ("pictures.zip", hashlib.sha256(content).hexdigest())
    alice.delete(f"/v1/files/{made['id']}")


def test_a_file_of_unknown_length_arrives_in_pieces(alice: httpx2.Client) -> None:
    content = CONTENTS[".tar"]
    pieces = (content[start : start + 777] for start in range(0, len(content), 777))
    made = alice.post("/v1/files", content=pieces, headers={"Content-Type": "application/x-tar"}).json()
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    alice.delete(f"/v1/files/{made['id']}")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"no archive", ZIP, 422, "undecodable"),
        (CONTENTS[".zip"][:-30], ZIP, 422, "undecodable"),
        (CONTENTS[".parquet"][:-4], ZIP, 422, "undecodable"),
        (gzip.compress(b"one file, no tar" * 99), ZIP, 422, "undecodable"),
        (b"", ZIP, 400, "empty_body"),
        (b"PK\x03\x04", {"Content-Type": "image/png"}, 415, "unsupported_media_type"),
        (b"PK\x03\x04", {}, 415, "unsupported_media_type"),
        (b"PK\x03\x04", {**ZIP, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"x" * (2**20 + 1), ZIP, 413, "request_too_large"),
        (b"--b", {"Content-Type": "multipart/form-data"}, 400, "malformed_multipart"),
        (b"--b", {"Content-Type": f"multipart/form-data; boundary={'b' * 257}"}, 400, "malformed_multipart"),
        (b"--b\r\n\r\n--b--", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed_multipart"),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            {"Content-Type": "multipart/form-data; boundary=b"},
            400,
            "malformed_multipart",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx',
            {"Content-Type": "multipart/form-data; boundary=b"},
            400,
            "malformed_multipart",
        ),
    ],
)
def test_what_no_job_could_read_is_refused(
    alice: httpx2.Client, jobs: JobService, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    before = left(jobs)
    answer = alice.post("/v1/files", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert left(jobs) == before


def test_a_file_that_lies_about_its_length_is_counted(alice: httpx2.Client, jobs: JobService) -> None:
    before = left(jobs)
    answer = alice.post("/v1/files", content=(b"x" * 2**16 for _ in range(17)), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert left(jobs) == before


def test_all_files_together_are_bounded(alice: httpx2.Client, jobs: JobService) -> None:
    large = zipped({"noise.png": bytes(900_000)})
    made = [alice.post("/v1/files", content=large, headers=ZIP) for _ in range(4)]
    assert [answer.status_code for answer in made] == [201, 201, 201, 507]
    assert made[3].json()["code"] == "storage_full"
    for answer in made[:3]:
        alice.delete(f"/v1/files/{answer.json()['id']}")
    assert alice.get("/v1/files").json() == {"object": "list", "data": [], "next_page_token": None}
    assert left(jobs) == []


def test_a_disk_that_would_be_full_takes_no_file(tmp_path: Path, bundle_path: Path) -> None:
    its = JobSettings(directory=tmp_path / "jobs", free_bytes=2**62)
    with running(Settings(device="cpu", threads=1, jobs=its), bundle_path) as url:
        answer = httpx2.post(f"{url}/v1/files", content=CONTENTS[".zip"], headers=ZIP)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def half_sent(url: str) -> socket.socket:
    """A connection over which half a file was sent."""
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=20)
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Type: application/zip\r\n"
    connection.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"PK\x03\x04" + bytes(50_000))
    return connection


def test_nothing_stays_of_a_client_that_leaves(jobs: JobService) -> None:
    connection = half_sent(jobs.url)
    until(lambda: any(name.endswith(".unfinished") for name in left(jobs)), "a file arrives")
    connection.close()
    until(lambda: not any(name.endswith(".unfinished") for name in left(jobs)), "it is gone")


def test_no_more_files_arrive_at_a_time_than_may(tmp_path: Path, bundle_path: Path) -> None:
    its = JobSettings(directory=tmp_path / "jobs", uploads=2)
    with (
        running(Settings(device="cpu", threads=1, jobs=its), bundle_path) as url,
        contextlib.ExitStack() as stack,
    ):
        senders = [stack.enter_context(half_sent(url)) for _ in range(8)]
        until(lambda: len(select.select(senders, [], [], 0)[0]) == 6, "all but two are told")
        assert {sender.recv(12) for sender in select.select(senders, [], [], 0)[0]} == {b"HTTP/1.1 429"}
        assert len(list((tmp_path / "jobs" / "files").iterdir())) == 2


def test_who_stops_sending_is_told_so_and_others_wait_for_room(tmp_path: Path, bundle_path: Path) -> None:
    its = JobSettings(directory=tmp_path / "jobs", uploads=1)
    settings = Settings.model_validate({"device": "cpu", "threads": 1, "jobs": its, "limits": {"body_seconds": 1.5}})
    with running(settings, bundle_path) as url, half_sent(url) as connection:
        until(lambda: any((tmp_path / "jobs" / "files").iterdir()), "a file arrives")
        other = httpx2.post(f"{url}/v1/files", content=CONTENTS[".zip"], headers=ZIP)
        assert (other.status_code, other.json()["code"], other.headers["Retry-After"]) == (429, "queue_full", "5")
        assert b" 408 " in connection.recv(1000)
        until(lambda: not any((tmp_path / "jobs" / "files").iterdir()), "it is gone")
