"""The engine `ray`: the shards of a job on the actors of a Ray cluster, handed out by Ray Data. Only numbers travel.

All nodes have to see the job's folder, its inputs and its model under the same paths, and have isolatent installed.
Each actor has one process of the local engine at its side: a file that ends a process costs what it costs there, and
Ray sees nothing of it. What Ray looks after are actors and nodes that are lost: others compute what they had in hand.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isolatent._machine import cores
from isolatent_serve.jobs.folder import Counts, JobFolder, Progress
from isolatent_serve.jobs.local import Hand, OnProgress
from isolatent_serve.jobs.spec import JobError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""Nothing is reported to anybody, little is written between the lines of ours, and what is shut down stays so."""

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's word for a cluster that nobody else joins: everything listens on 127.0.0.1, where it would on all addresses."""

_STORE_BYTES = 80 * 2**20  # about the least that Ray accepts; nothing but numbers is stored
_CONNECT_SECONDS = 10.0
_TICK_SECONDS = 0.2
_END_SECONDS = 10.0

Batch = dict[str, NDArray[Any]]


def run(
    folder: JobFolder,
    address: str | None = None,
    actors: int | None = None,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> Counts:
    """Compute the shards that are not done yet, until all are or `stop` is set; shards that are done stay.

    `address` is HOST:PORT of a cluster; None: that of RAY_ADDRESS, or a cluster of this machine alone that ends with
    this call. A connection that there is already is used, and stays. `actors` None: as many as the cluster has cores,
    or GPUs when the job is for CUDA. Raises JobError: Ray is not installed or not to be reached, a node does not see
    the folder, and whatever the local engine raises.
    """
    with folder.locked():
        if todo := folder.todo():
            with _connected(address or os.environ.get("RAY_ADDRESS"), actors) as ray:
                _compute(ray, folder, todo, actors, on_progress or _ignore, stop or threading.Event())
        return folder.counts()


class Shards:
    """What an actor runs: the shard whose number it is given. It begins with the first."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._hand: Hand | None = None

    def __call__(self, batch: Batch) -> Batch:
        """One row with the number of a shard -> that number, and what kept the shard from being computed, if anything.

        Nothing is raised: Ray Data would wrap it, or try again.
        """
        (shard,) = batch["shard"].tolist()
        try:
            error = self._compute(shard)
        except JobError as found:
            error = str(found)
        return {"shard": np.array([shard]), "error": np.array([error], dtype=object)}

    def _compute(self, shard: int) -> str:
        if not Path(self._path).is_dir():
            return f"node {platform.node()} does not see {self._path}; put the job where all nodes see it"
        folder = JobFolder(self._path)
        if folder.part(shard).exists():  # done by an actor that was lost before it could say so
            return ""
        self._hand = self._hand or Hand(folder)
        self._hand.compute(shard)
        return ""


def _compute(
    ray: Any, folder: JobFolder, todo: list[int], actors: int | None, on_progress: OnProgress, stop: threading.Event
) -> None:
    """Hand out the shards until none is left, or `stop` is set. Raises JobError."""
    on_gpu = folder.spec.device == "cuda"
    have = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
    size = min(actors or have, len(todo))
    if not size:
        kind = "GPUs" if on_gpu else "processors"
        raise JobError(f"the Ray cluster has no {kind}; add nodes that have some, or name another with --address")
    dataset = _dataset(ray, folder, todo, size, {"num_gpus": 1} if on_gpu else {"num_cpus": 1})
    counts, done = folder.counts(), folder.shards - len(todo)
    on_progress(Progress(counts, done, folder.shards))
    for row in _rows(dataset, stop):
        if row["error"]:
            raise JobError(row["error"])
        found = folder.counts_of(row["shard"])
        counts = Counts(counts.total, counts.succeeded + found.succeeded, counts.failed + found.failed)
        done += 1
        on_progress(Progress(counts, done, folder.shards))


def _dataset(ray: Any, folder: JobFolder, todo: list[int], size: int, needs: dict[str, int]) -> Any:
    """A block per shard, so that each is a task. Ray does not read them: that takes cores, and the actors have all."""
    import pyarrow as pa

    numbers = ray.data.from_blocks([pa.table({"shard": [number]}) for number in todo])
    numbers.context.enable_progress_bars = False
    return numbers.map_batches(
        Shards,
        fn_constructor_args=(str(folder.path.absolute()),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        **needs,
    )


def _rows(dataset: Any, stop: threading.Event) -> Iterator[dict[str, Any]]:
    """The rows of a dataset as they come, until there are no more or `stop` is set. Raises JobError."""
    found: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()
    ended = threading.Event()

    def pull() -> None:
        try:
            for row in dataset.iter_rows():
                found.put(row)
                if ended.is_set():
                    return
            found.put(None)
        except Exception as error:
            found.put(error)

    puller = threading.Thread(target=pull, name="ray-rows", daemon=True)
    puller.start()  # beside this one, which obeys `stop` meanwhile
    try:
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                row = found.get(timeout=_TICK_SECONDS)
                if row is None:
                    return
                if isinstance(row, Exception):
                    raise JobError(f"Ray gave up ({_first_line(row)}); is the cluster whole? Then run it again")
                yield row
    finally:
        ended.set()
        puller.join(_END_SECONDS)  # until a shard in hand is done, unless that takes long


# ---- the cluster ----


@contextlib.contextmanager
def _connected(address: str | None, actors: int | None) -> Iterator[Any]:
    """Ray, connected to a cluster for as long as the block lasts. Raises JobError."""
    ray = _import(local=not address)
    if ray.is_initialized():
        yield ray
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals_kept())
        if address:
            _require_reachable(address)
            where: dict[str, Any] = {"address": address}
        else:
            # Its own folder, short as paths of sockets have to be: Ray leaves its logs behind otherwise.
            work = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            where = {
                "address": "local",
                "num_cpus": actors or cores(),
                "object_store_memory": _STORE_BYTES,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(work),
            }
        stack.callback(ray.shutdown)
        try:
            with _signals_kept():
                ray.init(**where, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            place = address or "a cluster of this machine"
            raise JobError(f"Ray does not start on {place} ({_first_line(error)}); check it with ray status") from None
        yield ray


def _import(*, local: bool) -> Any:
    """Ray and Ray Data, told before they read the environment what to do and what to leave. Raises JobError."""
    for name, value in (_QUIET | (_LOOPBACK if local else {})).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise JobError(f'the engine ray needs Ray ({error}); run: pip install "isolatent[ray]"') from None
    return ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """What happens on SIGTERM is decided by whoever calls: Ray puts its own way in the place of any other."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _require_reachable(address: str) -> None:
    """Ray itself tries for minutes. Raises JobError."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto" or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise JobError(f"{address}: no Ray cluster ({reason}); start one with ray start --head") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _ignore(_progress: Progress) -> None:
    pass
