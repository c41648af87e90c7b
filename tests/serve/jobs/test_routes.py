"""/v1/jobs of a running service: jobs are made once, belong to whoever made them, and give what the service gives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from isolatent_serve import Settings
from isolatent_serve.jobs.schemas import Job, JobList
from isolatent_serve.problems import PROBLEMS
from jobs_api_support import ALICE, JobService, create, errors, pictures, rows, upload, wait
from serve_support import running

GOOD = {"input": {"path": "images"}}


@pytest.fixture(scope="module")
def done(jobs: JobService) -> dict[str, Any]:
    """A job of alice over the folder `images`, that is over."""
    with jobs.client(ALICE) as client:
        made = create(client, {**GOOD, "outputs": ["embedding"], "metadata": {"project": "x"}})
        return wait(client, made["id"], seconds=200)


@pytest.mark.timeout(240)
def test_a_job_gives_what_the_service_gives(alice: httpx2.Client, jobs: JobService, done: dict[str, Any]) -> None:
    assert done["counts"] == {"total": 20, "succeeded": 19, "failed": 1}
    assert (done["state"], done["model"], done["version"], done["metadata"]) == (
        "succeeded",
        "tiny",
        "1",
        {"project": "x"},
    )
    assert done["outputs"] == ["posterior", "embedding"]
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] <= done["expires_at"]
    found = rows(alice, done["id"])
    names = sorted(path.name for path in (jobs.inputs / "images").iterdir())
    assert sorted(found) == [name for name in names if name != "000002.png"]
    for name in ("000000.png", "000019.png"):
        kind = {"Content-Type": "image/png"}
        answer = alice.post("/v1/posteriors", content=(jobs.inputs / "images" / name).read_bytes(), headers=kind)
        (expected,) = answer.json()["data"]
        assert np.allclose(found[name]["mean"], expected["mean"], atol=1e-5)
        assert np.allclose(found[name]["variance"], expected["variance"], rtol=1e-4)
    (error,) = errors(alice, done["id"])
    assert (error["id"], error["index"], error["code"]) == ("000002.png", 2, "undecodable")


def test_a_part_comes_in_ranges(alice: httpx2.Client, done: dict[str, Any]) -> None:
    (part,) = alice.get(f"/v1/jobs/{done['id']}/results").json()["data"]
    whole = alice.get(part["href"])
    assert whole.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert len(whole.content) == part["bytes"]
    some = alice.get(part["href"], headers={"Range": "bytes=4-99", "If-Range": whole.headers["ETag"]})
    assert (some.status_code, some.content) == (206, whole.content[4:100])
    assert alice.get(part["href"], headers={"Range": "bytes=-5"}).content == whole.content[-5:]
    assert alice.get(part["href"], headers={"Range": "lines=1"}).content == whole.content
    beyond = alice.get(part["href"], headers={"Range": f"bytes={part['bytes']}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{part['bytes']}"


@pytest.mark.timeout(240)
def test_an_uploaded_file_is_kept_while_its_job_needs_it(alice: httpx2.Client) -> None:
    file = upload(alice, pictures(4))
    made = create(alice, {"input": file, "format": "jsonl"})
    refused = alice.delete(f"/v1/files/{file}")
    assert (refused.status_code, refused.json()["code"]) == (409, "file_in_use")
    assert made["id"] in refused.json()["detail"]
    over = wait(alice, made["id"], seconds=200)
    assert over["counts"] == {"total": 4, "succeeded": 4, "failed": 0}
    (part,) = alice.get(f"/v1/jobs/{made['id']}/results").json()["data"]
    lines = alice.get(part["href"])
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert lines.text.count("\n") == part["rows"] == 4
    assert alice.delete(f"/v1/files/{file}").status_code == 204


def test_the_same_key_with_the_same_request_is_the_same_job(alice: httpx2.Client, bob: httpx2.Client) -> None:
    body, key = {"input": {"path": "images"}, "samples": None}, {"Idempotency-Key": "once"}
    first, second = (alice.post("/v1/jobs", json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["Location"] == second.headers["Location"] == f"/v1/jobs/{first.json()['id']}"
    assert int(first.headers["Retry-After"]) >= 1
    other = alice.post("/v1/jobs", json={**body, "format": "jsonl"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    theirs = bob.post("/v1/jobs", json=body, headers=key)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != first.json()["id"]
    for client, made in ((alice, first), (bob, theirs)):
        client.post(f"/v1/jobs/{made.json()['id']}/cancel")


def test_others_see_none_of_it(alice: httpx2.Client, bob: httpx2.Client, done: dict[str, Any]) -> None:
    address = f"/v1/jobs/{done['id']}"
    asked = [bob.get(address + more) for more in ("", "/results", "/results/0", "/errors")]
    asked += [bob.delete(address), bob.post(f"{address}/cancel")]
    assert {(answer.status_code, answer.json()["code"]) for answer in asked} == {(404, "job_not_found")}
    assert done["id"] not in bob.get("/v1/jobs?page_size=1000").text
    file = upload(alice, pictures(1))
    for answer in (
        bob.get(f"/v1/files/{file}"),
        bob.delete(f"/v1/files/{file}"),
        bob.post("/v1/jobs", json={"input": file}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    alice.delete(f"/v1/files/{file}")


def test_a_list_comes_in_pages_without_gaps(bob: httpx2.Client) -> None:
    made = [create(bob, GOOD)["id"] for _ in range(5)]
    for job in made:
        bob.post(f"/v1/jobs/{job}/cancel")
    found: list[str] = []
    token: str | None = ""
    while token is not None:
        page = JobList.model_validate_json(bob.get(f"/v1/jobs?page_size=2{token and '&page_token='}{token}").content)
        assert len(page.data) <= 2
        found += [job.id for job in page.data]
        token = page.next_page_token
    assert [job for job in found if job in made] == made[::-1]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=1001", "page_size=x", "page_token=x!", "state=asleep", "q=1"]
)
def test_a_page_that_cannot_be_is_refused(alice: httpx2.Client, query: str) -> None:
    answer = alice.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] in ("invalid_option", "unknown_field")


def test_a_cancelled_job_ends_and_can_be_deleted(alice: httpx2.Client, jobs: JobService) -> None:
    made = create(alice, GOOD)
    early = alice.delete(f"/v1/jobs/{made['id']}")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_over")
    assert alice.post(f"/v1/jobs/{made['id']}/cancel").json()["state"] in ("cancelling", "cancelled")
    over = wait(alice, made["id"], seconds=60)
    assert over["state"] == "cancelled"
    assert alice.post(f"/v1/jobs/{made['id']}/cancel").json() == over
    assert alice.get(f"/v1/jobs/{made['id']}/results").status_code == 200
    assert alice.delete(f"/v1/jobs/{made['id']}").status_code == 204
    assert alice.get(f"/v1/jobs/{made['id']}").status_code == 404
    assert not (jobs.directory / "jobs" / made["id"]).exists()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "missing_input"),
        ({"input": None}, 400, "missing_input"),
        ({"input": "file-x"}, 400, "invalid_option"),
        ({"input": {"file": "file-" + "0" * 32, "path": "x"}}, 400, "invalid_option"),
        ({"input": "file-" + "0" * 32}, 404, "file_not_found"),
        ({"input": {"path": "nothing/*.png"}}, 400, "path_refused"),
        ({"input": {"path": "../secret.png"}}, 400, "path_refused"),
        ({"input": {"path": "/etc/passwd"}}, 400, "path_refused"),
        ({"input": {"path": "link.png"}}, 400, "path_refused"),
        ({"input": {"path": "s3://bucket/x.png"}}, 400, "path_refused"),
        ({**GOOD, "model": "none"}, 404, "model_not_found"),
        ({**GOOD, "outputs": ["latent"]}, 400, "invalid_option"),
        ({**GOOD, "format": "npy"}, 400, "invalid_option"),
        ({**GOOD, "samples": 0}, 400, "invalid_option"),
        ({**GOOD, "samples": True}, 400, "invalid_option"),
        ({**GOOD, "metadata": {"a": 1}}, 400, "invalid_option"),
        ({**GOOD, "priority": 1}, 400, "unknown_field"),
    ],
)
def test_a_job_that_cannot_be_is_refused(alice: httpx2.Client, body: Any, status: int, code: str) -> None:
    answer = alice.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_body_that_is_no_job_is_refused(alice: httpx2.Client) -> None:
    kind = {"Content-Type": "application/json"}
    for body, code in ((b"{", "malformed_json"), (b"[]", "malformed_json"), (b"", "empty_body")):
        assert alice.post("/v1/jobs", content=body, headers=kind).json()["code"] == code
    large = alice.post("/v1/jobs", json={**GOOD, "metadata": {"a": "x" * 2**16}})
    assert (large.status_code, large.json()["code"]) == (413, "request_too_large")
    assert alice.post("/v1/jobs", content=b"x").json()["code"] == "unsupported_media_type"
    assert alice.post("/v1/jobs", json=GOOD, headers={"Idempotency-Key": "k" * 256}).json()["code"] == "invalid_option"


def test_one_owner_may_not_have_too_many_jobs_waiting(alice: httpx2.Client, bob: httpx2.Client) -> None:
    made = [alice.post("/v1/jobs", json=GOOD) for _ in range(9)]
    assert [answer.status_code for answer in made] == [202] * 8 + [429]
    assert made[-1].json()["code"] == "queue_full"
    assert int(made[-1].headers["Retry-After"]) >= 1
    theirs = create(bob, GOOD)
    for client, answer in [(alice, each.json()) for each in made[:-1]] + [(bob, theirs)]:
        client.post(f"/v1/jobs/{answer['id']}/cancel")


def test_an_absolute_path_below_the_roots_is_one(alice: httpx2.Client, jobs: JobService) -> None:
    made = create(alice, {"input": {"path": str(jobs.inputs / "images" / "*1.png")}})
    Job.model_validate(made)
    alice.post(f"/v1/jobs/{made['id']}/cancel")


def test_metrics_tell_jobs_and_inputs(alice: httpx2.Client, done: dict[str, Any]) -> None:
    assert done["state"] == "succeeded"
    time.sleep(1)  # they are told twice a second
    text = alice.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['isolatent_jobs{state="succeeded"}']) >= 1
    assert float(values['isolatent_job_items_total{result="succeeded"}']) >= 19
    assert float(values['isolatent_job_items_total{result="failed"}']) >= 1


def test_every_address_answers_errors_as_documented(alice: httpx2.Client, jobs: JobService) -> None:
    paths = alice.get("/openapi.json").json()["paths"]
    addresses = {path for path in paths if path.startswith(("/v1/files", "/v1/jobs"))}
    assert len(addresses) == 8
    for address in addresses:
        where = address.format(file="none", job="none", index="0")
        for verb in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            keyless = httpx2.request(verb, jobs.url + where)
            assert (keyless.status_code, keyless.json()["code"]) == (401, "missing_key")
            if verb.lower() not in paths[address]:
                answer = alice.request(verb, where)
                assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
                assert sorted(answer.headers["Allow"].split(", ")) == sorted(each.upper() for each in paths[address])
            elif "{" in address:
                answer = alice.request(verb, where)
                assert answer.status_code == PROBLEMS[answer.json()["code"]][0] == 404
                assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_service_without_jobs_names_the_option(bundle_path: Path) -> None:
    with running(Settings(device="cpu", threads=1), bundle_path) as url:
        for answer in (
            httpx2.get(f"{url}/v1/jobs"),
            httpx2.post(f"{url}/v1/files", content=b"x" * 1000),
            httpx2.post(f"{url}/v1/jobs/job-1/cancel"),
            httpx2.delete(f"{url}/v1/files/file-1"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (501, "jobs_off")
            assert "--jobs DIR" in answer.json()["detail"]
        assert not [path for path in httpx2.get(f"{url}/openapi.json").json()["paths"] if "jobs" in path]
