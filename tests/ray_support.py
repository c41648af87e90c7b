"""A real Ray cluster of this machine for tests: a head and nodes with a processor each, all on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from serve_support import descendants

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
"""Without an import: Ray reads the environment in it, which has to be set before."""

QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
"""Ray Data warns of its own settings."""

_STORE_BYTES = 80 * 2**20
_NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": _STORE_BYTES}
_HEAD = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True, **_NODE}
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word for: on 127.0.0.1 only
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


@contextlib.contextmanager
def ray_cluster() -> Iterator[Any]:
    """A ray.cluster_utils.Cluster of a head and one node. All of it has ended after the block."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as work,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in (_ENVIRONMENT | {"RAY_TMPDIR": work}).items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        handler = signal.getsignal(signal.SIGTERM)
        cluster = Cluster(initialize_head=True, head_node_args=_HEAD)
        try:
            add_node(cluster)
            yield cluster
        finally:
            cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)


def add_node(cluster: Any) -> None:
    """One more node, with one processor."""
    cluster.add_node(**_NODE)


def ray_actors(pid: int | None = None) -> list[int]:
    """The processes of Ray Data's actors below this process, or another."""
    return [each for each in descendants(pid or os.getpid()) if _title(each).startswith("ray::MapWorker")]


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
