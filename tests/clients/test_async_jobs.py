"""AsyncClient's jobs and files against a real service that does jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from isolatent import AsyncClient, AsyncJob, Client, ConflictError, JobError, NotFoundError

Use = Callable[[AsyncClient], Awaitable[None]]


@pytest.fixture
def run(jobs_url: str) -> Callable[[Use], None]:
    """Run a coroutine with a client of its own."""

    async def with_client(use: Use) -> None:
        async with AsyncClient(jobs_url) as client:
            await use(client)

    return lambda use: asyncio.run(with_client(use))


@pytest.fixture
def folder(pngs: list[Path], tmp_path: Path) -> Path:
    """Three pictures, and one that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pngs[:3]:
        path.rename(folder / path.name)
    (folder / "bad.png").write_text("no picture")
    return folder


def test_a_job_from_folder_to_results(run: Callable[[Use], None], folder: Path, jobs_url: str, tmp_path: Path) -> None:
    async def use(client: AsyncClient) -> None:
        job = await client.jobs.create(folder, outputs=["embedding"])
        assert (await job.wait(60, progress=lambda *_: None)) is job
        assert repr(job) == f"<AsyncJob {job.id} succeeded: 4 of 4 done, 1 failed>"
        rows = {row.id: row.posterior async for row in job.results()}
        assert [(error.id, error.code) async for error in job.errors()] == [("bad.png", "undecodable")]
        assert (await job.table())["id"].to_pylist() == list(rows) == ["0.png", "1.png", "2.png"]
        (path,) = await job.download(tmp_path / "out")
        assert path.read_bytes().startswith(b"PAR1")
        assert (await anext(client.jobs.list(state="succeeded"))).id == job.id
        with Client(jobs_url) as other:  # both read the same
            assert {row.id: row.posterior for row in other.jobs.get(job.id).results()} == rows
        await job.delete()
        with pytest.raises(NotFoundError):
            await client.jobs.get(job.id)

    run(use)


def test_many_jobs_are_waited_for_at_once(run: Callable[[Use], None], folder: Path) -> None:
    async def use(client: AsyncClient) -> None:
        file = await client.files.upload(folder)
        first, second = await asyncio.gather(*(client.jobs.create(file, format="jsonl") for _ in range(2)))
        with pytest.raises(JobError, match="wait"):
            await anext(first.results())
        done = await asyncio.gather(first.wait(60), second.wait(60))
        assert [job.counts.succeeded for job in done] == [3, 3]

    run(use)


def test_a_key_of_ones_own_makes_one_job_of_two_calls(run: Callable[[Use], None], folder: Path) -> None:
    async def use(client: AsyncClient) -> None:
        first: AsyncJob = await client.jobs.create(folder, idempotency_key="hourly")
        assert (await client.jobs.create(folder, idempotency_key="hourly")).id == first.id
        with pytest.raises(ConflictError):
            await client.jobs.create(folder, outputs=["embedding"], idempotency_key="hourly")
        assert (await first.cancel()).state in ("cancelled", "cancelling")

    run(use)


def test_files_are_kept_listed_and_deleted(run: Callable[[Use], None], folder: Path) -> None:
    async def use(client: AsyncClient) -> None:
        stored = await client.files.upload(folder)
        assert await client.files.get(stored.id) == stored
        assert stored in [each async for each in client.files.list()]
        await client.files.delete(stored.id)
        with pytest.raises(NotFoundError):
            await client.files.get(stored.id)

    run(use)
