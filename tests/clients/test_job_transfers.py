"""What happens to jobs, uploads and downloads when requests fail on the way, with a scripted stand-in."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isolatent import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    AsyncClient,
    Client,
    JobError,
    JobTimeout,
    NotFoundError,
    ServiceUnavailableError,
)

if TYPE_CHECKING:
    from conftest import StandIn

PART = bytes(range(256)) * 20_000
JSON = {"content_type": "application/json"}
FACTS: dict[str, Any] = {
    "id": "job-" + 32 * "0",
    "state": "running",
    "model": "tiny",
    "version": "1",
    "format": "jsonl",
    "input": {"file": "file-" + 32 * "0"},
    "counts": {"total": 9, "succeeded": 3, "failed": 1},
}
STORED = {"id": "file-" + 32 * "0", "filename": "a.zip", "created_at": "2026-01-02T03:04:05Z", "expires_at": None}


def facts(**changes: Any) -> bytes:
    return json.dumps(FACTS | changes).encode()


def stored(content: bytes) -> bytes:
    return json.dumps(STORED | {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}).encode()


def listing(sha256: str = hashlib.sha256(PART).hexdigest()) -> bytes:
    part = {"object": "part", "index": 0, "rows": 1, "bytes": len(PART), "sha256": sha256, "href": ""}
    return json.dumps({"object": "list", "data": [part]}).encode()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(PART)
    return path


def broken_part(handler: BaseHTTPRequestHandler) -> None:
    """The whole part is announced, and its connection ends in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(PART)))
    handler.end_headers()
    handler.wfile.write(PART[:3_000_000])
    handler.close_connection = True


def rest_of_part(handler: BaseHTTPRequestHandler) -> None:
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(PART) - start))
    handler.end_headers()
    handler.wfile.write(PART[start:])


def no_answer(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def test_a_delete_whose_answer_was_lost_has_been_done(stand_in: StandIn) -> None:
    stand_in.replies.append(no_answer)
    stand_in.reply(404)
    with Client(stand_in.url) as client:
        client.files.delete(STORED["id"])
        stand_in.replies.insert(0, no_answer)
        client.jobs.delete(FACTS["id"])
        stand_in.replies.insert(0, no_answer)
        asyncio.run(AsyncClient(stand_in.url).jobs.delete(FACTS["id"]))
    assert len(stand_in.requests) == 6


def test_a_delete_of_what_was_never_there_is_not_found(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after="0")
    stand_in.reply(404)
    with Client(stand_in.url) as client:
        for _ in range(2):  # also after a refusal, which has deleted nothing
            with pytest.raises(NotFoundError):
                client.files.delete("file-" + 32 * "0")


def test_an_upload_that_breaks_is_sent_again_whole(stand_in: StandIn, archive: Path) -> None:
    stand_in.reply_raw(b"")
    stand_in.reply(201, stored(PART), **JSON)
    seen: list[int] = []
    with Client(stand_in.url) as client:
        file = client.files.upload(archive, progress=lambda done, _: seen.append(done))
    bodies = [body for _, _, body in stand_in.requests]
    assert bodies == [PART, PART]
    assert seen.index(0) > 0  # it starts over
    assert seen[-1] == len(PART) == file.bytes
    assert stand_in.requests[0][1]["Content-Length"] == str(len(PART))


def test_an_upload_is_not_cut_off_by_the_timeout_while_it_moves(stand_in: StandIn, archive: Path) -> None:
    stand_in.reply(201, stored(PART), **JSON)
    with Client(stand_in.url, timeout=0.5) as client:
        client.files.upload(archive, progress=lambda *_: time.sleep(0.05))  # 20 pieces: a second


def test_a_service_that_takes_nothing_is_given_up(stand_in: StandIn, archive: Path) -> None:
    stand_in.replies.append(lambda _: time.sleep(1))
    with Client(stand_in.url, timeout=0.3) as client, pytest.raises(APITimeoutError):
        client.files.upload(archive)


def test_a_file_that_arrives_as_another_is_noticed(stand_in: StandIn, archive: Path) -> None:
    stand_in.reply(201, stored(b"something else"), **JSON)
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match="arrived as another file"):
        client.files.upload(archive)


def test_every_attempt_to_make_a_job_has_the_same_key(stand_in: StandIn) -> None:
    stand_in.reply(503, retry_after="0")
    stand_in.reply_raw(b"")
    stand_in.reply(202, facts(), **JSON)
    stand_in.reply(202, facts(), **JSON)
    with Client(stand_in.url) as client:
        client.jobs.create("file-" + 32 * "0")
        client.jobs.create("file-" + 32 * "0")
    keys = [headers["Idempotency-Key"] for _, headers, _ in stand_in.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_download_goes_on_where_its_connection_broke(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    stand_in.reply(200, listing(), **JSON)
    stand_in.replies += [broken_part, rest_of_part]
    with Client(stand_in.url) as client:
        (path,) = client.jobs.get(FACTS["id"]).download(tmp_path / "out")
    assert path.read_bytes() == PART
    assert "Range" not in stand_in.requests[2][1]
    assert stand_in.requests[3][1]["Range"] == "bytes=3000000-"


def test_a_download_starts_over_where_ranges_are_not_given(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    stand_in.reply(200, listing(), **JSON)
    stand_in.replies.append(broken_part)
    stand_in.reply(200, PART)
    with Client(stand_in.url) as client:
        (path,) = client.jobs.get(FACTS["id"]).download(tmp_path / "out")
    assert path.read_bytes() == PART


def test_a_download_that_never_comes_further_is_given_up(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    stand_in.reply(200, listing(), **JSON)
    stand_in.replies.append(broken_part)
    with Client(stand_in.url, max_retries=1) as client, pytest.raises(APIConnectionError, match="connection broke"):
        client.jobs.get(FACTS["id"]).download(tmp_path / "out")
    assert len(stand_in.requests) == 4


def test_a_part_that_is_not_what_the_list_says_is_never_kept(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    stand_in.reply(200, listing(64 * "0"), **JSON)
    stand_in.reply(200, PART)
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match="another sha256"):
        client.jobs.get(FACTS["id"]).download(tmp_path / "out")
    assert len(stand_in.requests) == 4
    assert list((tmp_path / "out").iterdir()) == []


def test_waiting_lives_through_a_restart(stand_in: StandIn) -> None:
    stand_in.reply(200, facts(), retry_after="0", **JSON)
    stand_in.reply_raw(b"")
    stand_in.reply(503, retry_after="0")
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    with Client(stand_in.url, max_retries=0) as client:
        assert client.jobs.get(FACTS["id"]).wait(20).state == "succeeded"
    assert len(stand_in.requests) == 4


def test_waiting_ends_in_time_and_says_where_the_job_is(stand_in: StandIn) -> None:
    stand_in.reply(200, facts(), retry_after="30", **JSON)
    started = time.monotonic()
    with Client(stand_in.url) as client, pytest.raises(JobTimeout, match="4 of 9 inputs done; it goes on") as caught:
        client.jobs.get(FACTS["id"]).wait(0.5)
    assert time.monotonic() - started < 5
    for error in (caught.value, copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(error, JobError)
        assert (error.job_id, error.state, error.succeeded, error.total) == (FACTS["id"], "running", 3, 9)


def test_waiting_without_an_answer_ends_in_time_and_names_the_reason(stand_in: StandIn) -> None:
    stand_in.reply(200, facts(), retry_after="0", **JSON)
    stand_in.reply_raw(b"")
    with Client(stand_in.url, max_retries=0) as client, pytest.raises(JobTimeout, match="got no answer") as caught:
        client.jobs.get(FACTS["id"]).wait(0.5)
    assert isinstance(caught.value.__cause__, APIConnectionError)


def test_waiting_blames_no_question_before_those_that_were_answered(stand_in: StandIn) -> None:
    stand_in.reply(200, facts(), retry_after="0", **JSON)
    stand_in.reply(503, retry_after="0")
    stand_in.reply(200, facts(), retry_after="0", **JSON)
    with Client(stand_in.url, max_retries=0) as client, pytest.raises(JobTimeout) as caught:
        client.jobs.get(FACTS["id"]).wait(0.5)
    assert "got no answer" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_waiting_ends_at_once_where_asking_again_is_of_no_use(stand_in: StandIn) -> None:
    stand_in.reply(200, facts(), retry_after="0", **JSON)
    stand_in.reply(404)
    with Client(stand_in.url) as client, pytest.raises(Exception, match="404"):
        client.jobs.get(FACTS["id"]).wait(20)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"id": 3}', facts(counts=None)])
def test_nonsense_about_a_job_is_an_error_of_ours(body: bytes, stand_in: StandIn) -> None:
    stand_in.reply(200, body, **JSON)
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match="isolatent service"):
        client.jobs.get(FACTS["id"])


def test_the_asynchronous_client_repeats_and_resumes_too(stand_in: StandIn, archive: Path, tmp_path: Path) -> None:
    stand_in.reply_raw(b"")
    stand_in.reply(201, stored(PART), **JSON)
    stand_in.reply(200, facts(state="succeeded"), **JSON)
    stand_in.reply(200, listing(), **JSON)
    stand_in.replies += [broken_part, rest_of_part]
    threads = set()

    def report(_done: int, _total: int | None) -> None:
        threads.add(threading.get_ident())

    async def run() -> None:
        async with AsyncClient(stand_in.url) as client:
            await client.files.upload(archive, progress=report)
            (path,) = await (await client.jobs.get(FACTS["id"])).download(tmp_path / "out", progress=report)
            assert path.read_bytes() == PART

    asyncio.run(run())
    assert [body for _, _, body in stand_in.requests[:2]] == [PART, PART]
    assert stand_in.requests[5][1]["Range"] == "bytes=3000000-"
    assert threads == {threading.get_ident()}


def test_the_asynchronous_client_gives_up_in_time_too(stand_in: StandIn, archive: Path) -> None:
    stand_in.replies.append(lambda _: time.sleep(1))

    async def run() -> None:
        async with AsyncClient(stand_in.url, timeout=0.3) as client:
            await client.files.upload(archive)

    with pytest.raises(APITimeoutError):
        asyncio.run(run())


def test_a_refused_upload_is_answered(stand_in: StandIn, archive: Path) -> None:
    stand_in.reply(503, retry_after="100")
    with Client(stand_in.url) as client, pytest.raises(ServiceUnavailableError):
        client.files.upload(archive)
