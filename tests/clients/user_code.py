# pyright: strict
"""What a user may write: checked by mypy and pyright in their strict modes, never run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from isolatent import (
    APIStatusError,
    AsyncClient,
    AsyncJob,
    Client,
    IsolatentError,
    Job,
    JobCancelled,
    JobFailed,
    JobItemError,
    JobRow,
    JobTimeout,
    Model,
    Posterior,
    RateLimitError,
    StoredFile,
)


def pictures() -> Iterator[Path]:
    yield from Path("images").glob("*.png")


def report(done: int, total: int | None) -> None:
    print(done, total)


def synchronous() -> None:
    with Client("http://localhost:8000", api_key="key", timeout=5, max_retries=4) as client:
        p = assert_type(client.posterior("digit.png"), Posterior)
        q = client.posterior(b"bytes")
        assert_type(p.mean, NDArray[np.float32])
        assert_type(p.sample(3, seed=0), NDArray[np.float32])
        assert_type(p.distance(q), float)
        assert_type(p.distance([q, q], metric="bhattacharyya"), NDArray[np.float64])
        assert_type(client.posteriors(["a.png", b"b", np.zeros((4, 4), np.uint8)]), list[Posterior])
        assert_type(client.embed(pictures(), batch_size=8, concurrency=2, progress=True), NDArray[np.float32])
        assert_type(client.embed(np.zeros((5, 9, 3)), progress=report), NDArray[np.float32])
        for index, each in client.iter_posteriors(pictures()):
            assert_type((index, each), tuple[int, Posterior])
        for _, found in client.iter_embeddings(pictures(), on_error="item"):
            if isinstance(found, IsolatentError):
                print(found.indices, found.inputs, found.request_id)
            else:
                assert_type(found, NDArray[np.float32])
        with Path("digit.png").open("rb") as file:
            assert_type(client.reconstruct(file), NDArray[np.float32])
        assert_type(client.decode([[0.0, 1.0]]), NDArray[np.float32])
        assert_type(client.consistency("digit.png", samples=3), NDArray[np.float32])
        assert_type(client.reconstruct_file("digit.png", "png"), bytes)
        assert_type(client.models(), list[Model])
        try:
            client.ready()
        except RateLimitError as error:
            assert_type(error.retry_after, float | None)
        except APIStatusError as error:
            print(error.status, error.code, error.errors)


def jobs(client: Client) -> None:
    job = client.jobs.create("images/", outputs=("embedding", "consistency"), metadata={"for": "tests"})
    assert_type(job, Job)
    assert_type(client.jobs.create({"path": "images/*.png"}, "digits", format="jsonl").state == "queued", bool)
    try:
        assert_type(job.wait(60, progress=report), Job)
    except (JobFailed, JobCancelled) as error:
        print(error.job_id, error.code)
    except JobTimeout as error:
        assert_type(error.total, int | None)
        job.cancel()
    for row in job.results(partial=True):
        assert_type(row, JobRow)
        assert_type(row.posterior.mean, NDArray[np.float32])
        assert_type(row.embedding, NDArray[np.float32] | None)
    for bad in job.errors():
        assert_type(bad, JobItemError)
    assert_type(job.download("results", progress=True), list[Path])
    print(job.table().num_rows, job.counts.failed)
    for each in client.jobs.list(state="running"):
        assert_type(each.refresh(), Job)
    file = assert_type(client.files.upload(Path("images.zip")), StoredFile)
    assert_type(client.jobs.create(file).counts.total, int | None)
    client.files.delete(file.id)


async def async_jobs(client: AsyncClient) -> None:
    job = assert_type(await client.jobs.create(Path("images.tar"), outputs=["reconstruction_error"]), AsyncJob)
    assert_type(await job.wait(timeout=None), AsyncJob)
    async for row in job.results():
        assert_type(row, JobRow)
    async for each in client.jobs.list():
        assert_type(each, AsyncJob)
    assert_type(await job.download(Path("results")), list[Path])


async def sources() -> AsyncIterator[bytes]:
    yield b"png"


async def asynchronous() -> None:
    async with AsyncClient() as client:
        assert_type(await client.posterior("digit.png"), Posterior)
        assert_type(await client.embed(sources()), NDArray[np.float32])
        async for index, each in client.iter_posteriors(sources()):
            assert_type((index, each), tuple[int, Posterior])
        async for _, found in client.iter_reconstructions(pictures(), on_error="item"):
            assert_type(found, NDArray[np.float32] | IsolatentError)


if __name__ == "__main__":
    synchronous()
    asyncio.run(asynchronous())
