"""The engine `ray` on a real cluster: the files are those of the local engine, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from isolatent_serve.jobs import Counts, JobError, JobFolder, local, on_ray
from isolatent_serve.jobs.folder import Progress, written
from jobs_core_support import job, pictures, results
from ray_support import NEEDS_RAY, QUIET, add_node, ray_actors, ray_cluster
from serve_support import all_gone, descendants

pytestmark = [NEEDS_RAY, QUIET]

COUNTS = Counts(95, succeeded=86, failed=9)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes."""
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """95 pictures, nine of them broken: ten shards."""
    return pictures(tmp_path_factory.mktemp("ray") / "inputs", 95, bad=10)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, inputs: Path) -> dict[str, bytes]:
    """What the local engine makes of them."""
    folder = job(tmp_path_factory.mktemp("ray") / "local", bundle_path, inputs)
    assert local.run(folder, 1) == COUNTS
    return results(folder)


@pytest.fixture
def folder(tmp_path: Path, bundle_path: Path, inputs: Path) -> JobFolder:
    """The same job, planned."""
    return job(tmp_path / "job", bundle_path, inputs)


def once(action: Callable[[], None]) -> Callable[[Progress], None]:
    """Told of progress, does something when the second shard is done, and only then."""

    def act(progress: Progress) -> None:
        if progress.done == 2 and not done:
            done.append(True)
            action()

    done: list[bool] = []
    return act


def test_the_files_are_those_of_the_local_engine(cluster: Any, folder: JobFolder, expected: dict[str, bytes]) -> None:
    seen: list[Progress] = []
    assert on_ray.run(folder, cluster.address, on_progress=seen.append) == COUNTS
    assert results(folder) == expected
    assert [progress.done for progress in seen] == list(range(11))
    assert seen[-1].counts == COUNTS
    assert all_gone(ray_actors(), 20)


def test_a_killed_actor_costs_nothing(cluster: Any, folder: JobFolder, expected: dict[str, bytes]) -> None:
    def kill() -> None:
        killed.append(ray_actors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    assert on_ray.run(folder, cluster.address, on_progress=once(kill)) == COUNTS
    assert results(folder) == expected
    assert all_gone(killed)


def test_a_killed_process_at_the_side_of_an_actor_costs_nothing(
    cluster: Any, folder: JobFolder, expected: dict[str, bytes]
) -> None:
    def kill() -> None:
        killed.extend(process for actor in ray_actors() for process in descendants(actor))
        for process in killed:
            os.kill(process, signal.SIGKILL)

    killed: list[int] = []
    assert on_ray.run(folder, cluster.address, on_progress=once(kill)) == COUNTS
    assert results(folder) == expected
    assert killed


def test_a_killed_node_costs_nothing(cluster: Any, folder: JobFolder, expected: dict[str, bytes]) -> None:
    def kill() -> None:
        lost.append(ray_actors())
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    lost: list[list[int]] = []
    try:
        assert on_ray.run(folder, cluster.address, on_progress=once(kill)) == COUNTS
        assert results(folder) == expected
        assert len(lost[0]) == 2  # both had work
    finally:
        add_node(cluster)


def test_what_was_stopped_is_resumed_by_either_engine(
    cluster: Any, folder: JobFolder, expected: dict[str, bytes]
) -> None:
    stop = threading.Event()
    on_ray.run(folder, cluster.address, on_progress=once(stop.set), stop=stop)
    assert 0 < len(folder.todo()) <= 8
    assert all_gone(ray_actors(), 20)
    assert local.run(folder, 1) == COUNTS
    assert results(folder) == expected


def test_without_an_address_there_is_a_cluster_of_this_machine_until_the_end(
    folder: JobFolder, expected: dict[str, bytes]
) -> None:
    def look() -> None:
        processes.extend(set(descendants(os.getpid())) - others)
        connections = [each for pid in processes for each in psutil.Process(pid).net_connections("inet")]
        listening.extend(each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN)

    others = set(descendants(os.getpid()))
    processes: list[int] = []
    listening: list[str] = []
    handler = signal.getsignal(signal.SIGTERM)
    assert on_ray.run(folder, actors=1, on_progress=once(look)) == COUNTS
    assert results(folder) == expected
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert all_gone(processes, 20)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_address_where_nobody_listens_is_said_at_once(folder: JobFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(JobError, match=rf"^127.0.0.1:{port}: no Ray cluster \(.*\); start one with ray start --head$"):
        on_ray.run(folder, f"127.0.0.1:{port}")
    assert time.monotonic() - began < 30


def test_a_node_that_does_not_see_the_job_is_named(tmp_path: Path) -> None:
    row = on_ray.Shards(str(tmp_path / "elsewhere"))({"shard": np.array([3])})
    assert row["shard"].tolist() == [3]
    assert "elsewhere; put the job where all nodes see it" in row["error"][0]


def test_two_that_write_the_same_part_do_no_harm(tmp_path: Path) -> None:
    def write_again() -> None:
        with written(path) as file:
            file.write(b"whole")

    path = tmp_path / "part"
    second = threading.Thread(target=write_again)
    with written(path) as file:
        file.write(b"wh")
        second.start()  # on another node, to which the first seems lost
        second.join(0.3)
        assert second.is_alive()
        file.write(b"ole")
    assert path.read_bytes() == b"whole"
    second.join(10)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("part", b"whole")]
