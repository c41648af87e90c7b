"""The servers that benchmarks/serving.py compares: how each is started, asked and read, at its best settings.

A further one is one file in peers/ and one entry in `CONTESTANTS`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from processes import free_ports
from safetensors.numpy import load as load_tensors

from isolatent_export.bundle import Bundle

PEERS = Path(__file__).parent / "peers"
PEERS_BIN = Path(__file__).parents[1] / ".venv-peers" / "bin"

Array = NDArray[Any]
Started = tuple[list[str | Path], dict[str, str], Path]
"""(command, environment, folder to run in)"""


@dataclass(frozen=True)
class Contestant:
    """One server with its settings."""

    name: str
    start: Callable[[Bundle, int, Path, int], Started]
    """(model, port, folder for what it writes, cores) -> how to start it."""
    path: str
    settings: str
    documented: str
    """Where its documentation recommends them."""
    accept: str = "*/*"
    wrap: Callable[[str, bytes], tuple[str, bytes]] = lambda media_type, body: (media_type, body)
    """(media type, file) -> (Content-Type, body): peers that take no raw bodies wrap them."""
    read: Callable[[bytes], Array] = lambda body: np.frombuffer(body, "<f4")
    """Body of an answer to one picture -> its d means, then its d variances."""
    bulk_path: str | None = None
    """Where bodies of many pictures go, if elsewhere."""
    needs_peers: bool = True
    """Whether it runs in .venv-peers."""

    @property
    def available(self) -> bool:
        """Whether it can be started here."""
        return not self.needs_peers or PEERS_BIN.is_dir()


# ---- ours ----


def _ours(*options: str) -> Callable[[Bundle, int, Path, int], Started]:
    def start(bundle: Bundle, port: int, work: Path, _cores: int) -> Started:
        command = [sys.executable, "-m", "isolatent", "serve", bundle.path, "--port", str(port), "--device", "cpu"]
        return [*command, *options], {}, work

    return start


def _read_safetensors(body: bytes) -> Array:
    tensors = load_tensors(body)
    return np.concatenate([tensors["mean"][0], tensors["variance"][0]])


def _read_json(body: bytes) -> Array:
    (row,) = orjson.loads(body)["data"]
    return np.array(row["mean"] + row["variance"], np.float32)


# ---- peers ----


def _environment(bundle: Bundle, threads: int, **settings: object) -> dict[str, str]:
    return {
        "MODEL": str(bundle.file("encoder.onnx")),
        "THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "PATH": f"{PEERS_BIN}:{os.environ['PATH']}",  # TorchServe starts `python`
        "PYTHONPATH": str(PEERS),
        **{name: str(value) for name, value in settings.items()},
    }


def _fastapi(bundle: Bundle, port: int, work: Path, cores: int) -> Started:
    # From the environment of isolatent: it has the same FastAPI and uvicorn, and tests run it.
    command: list[str | Path] = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--workers", str(cores)]
    return [*command, "--port", str(port), "--no-access-log"], _environment(bundle, 1), work


def _mosec_alone(bundle: Bundle, port: int, work: Path, cores: int) -> Started:
    return _mosec(bundle, port, work, cores, alone=True)


def _mosec(bundle: Bundle, port: int, work: Path, cores: int, *, alone: bool = False) -> Started:
    command: list[str | Path] = [PEERS_BIN / "python", PEERS / "mosec_app.py", "--address", "127.0.0.1"]
    command += ["--port", str(port), "--timeout", "30000", "--log-level", "warning"]
    return command, _environment(bundle, cores if alone else 1, WORKERS=1 if alone else cores), work


def _litserve(bundle: Bundle, port: int, work: Path, cores: int) -> Started:
    env = _environment(bundle, 1, WORKERS=cores, API_SERVERS=cores, BATCH_TIMEOUT=0.001, FAST_QUEUE=1)
    return [PEERS_BIN / "python", PEERS / "litserve_app.py", str(port)], env, work


def _bentoml(bundle: Bundle, port: int, work: Path, cores: int) -> Started:
    env = _environment(bundle, 1, WORKERS=cores, MAX_LATENCY_MS=60000)
    env |= {"BENTOML_HOME": str(work / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command: list[str | Path] = [PEERS_BIN / "bentoml", "serve", "bentoml_app:Encoder", "--working-dir", PEERS]
    return [*command, "--host", "127.0.0.1", "--port", str(port)], env, work


def _bentoml_body(_media_type: str, body: bytes) -> tuple[str, bytes]:
    return "application/json", orjson.dumps({"inputs": [base64.b64encode(body).decode()]})


def _read_bentoml(body: bytes) -> Array:
    return np.frombuffer(base64.b64decode(json.loads(body)[0]), "<f4")


def _torchserve(bundle: Bundle, port: int, work: Path, cores: int) -> Started:
    store = work / "store"
    store.mkdir(exist_ok=True)
    archive: list[str | Path] = [
        PEERS_BIN / "torch-model-archiver",
        "--model-name",
        "encoder",
        "--version",
        "1.0",
        "-f",
    ]
    archive += ["--serialized-file", bundle.file("model.ts"), "--handler", PEERS / "torchserve_handler.py"]
    archive += ["--extra-files", PEERS / "common.py", "--export-path", store]
    # Its sockets and the file with its process id lie in the temporary folder, where another TorchServe may have its.
    env = _environment(bundle, 1, LOG_LOCATION=work, METRICS_LOCATION=work, TMPDIR=work, TEMP=work)
    subprocess.run(archive, check=True, env=os.environ | env, capture_output=True)
    model = {"marName": "encoder.mar", "defaultVersion": True, "minWorkers": cores, "maxWorkers": cores}
    model |= {"batchSize": 64, "maxBatchDelay": 1, "responseTimeout": 60}
    management, metrics, grpc_inference, grpc_management = free_ports(4)
    values = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_port": grpc_inference,
        "grpc_management_port": grpc_management,
        "model_store": store,
        "load_models": "encoder.mar",
        "models": json.dumps({"encoder": {"1.0": model}}),
        "async_logging": "true",
        "disable_system_metrics": "true",
        "disable_token_authorization": "true",
        "job_queue_size": 1024,
        "max_request_size": 64 * 2**20,
    }
    config = work / "config.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    command: list[str | Path] = [PEERS_BIN / "torchserve", "--start", "--foreground", "--ncs", "--ts-config", config]
    return [*command, "--log-config", PEERS / "torchserve-log4j2.xml"], env, work


SAFETENSORS = "application/x-safetensors"
POSTERIORS = "/v1/posteriors"

CONTESTANTS = (
    Contestant(
        "isolatent",
        _ours(),
        POSTERIORS,
        "the defaults; answers in safetensors",
        "docs/http-api.md",
        accept=SAFETENSORS,
        read=_read_safetensors,
        needs_peers=False,
    ),
    Contestant(
        "isolatent, JSON answers",
        _ours(),
        POSTERIORS,
        "the defaults; answers in JSON, its default",
        "docs/http-api.md",
        accept="application/json",
        read=_read_json,
        needs_peers=False,
    ),
    Contestant(
        "isolatent --threads 1",
        _ours("--threads", "1"),
        POSTERIORS,
        "--threads 1, the other core for everything else; answers in safetensors",
        "docs/operations.md",
        accept=SAFETENSORS,
        read=_read_safetensors,
        needs_peers=False,
    ),
    Contestant(
        "isolatent --workers 2",
        _ours("--workers", "2"),
        POSTERIORS,
        "--workers 2; answers in safetensors",
        "docs/operations.md",
        accept=SAFETENSORS,
        read=_read_safetensors,
        needs_peers=False,
    ),
    Contestant(
        "FastAPI route",
        _fastapi,
        "/posteriors",
        "uvicorn with uvloop and httptools, a worker per core, one model thread each, no access log, raw bodies",
        "https://fastapi.tiangolo.com/deployment/server-workers/",
        needs_peers=False,
    ),
    Contestant(
        "mosec 0.9.8",
        _mosec,
        "/inference",
        "a worker per core, one model thread each, max_batch_size 64, max_wait_time 1 ms, raw bodies",
        "https://mosecorg.github.io/mosec/reference/interface.html",
    ),
    Contestant(
        "mosec 0.9.8, one worker",
        _mosec_alone,
        "/inference",
        "the same with one worker, as many model threads as cores",
        "https://mosecorg.github.io/mosec/reference/interface.html",
    ),
    Contestant(
        "TorchServe 0.12.0",
        _torchserve,
        "/predictions/encoder",
        "a worker per core, one model thread each, batchSize 64, maxBatchDelay 1 ms, async_logging, warnings only, "
        "raw bodies",
        "https://pytorch.org/serve/performance_guide.html",
    ),
    Contestant(
        "LitServe 0.2.19",
        _litserve,
        "/predict",
        "workers_per_device and num_api_servers as many as cores, one model thread each, max_batch_size 64, "
        "batch_timeout 1 ms, fast_queue, raw bodies",
        "https://lightning.ai/docs/litserve/api-reference/litserver",
    ),
    Contestant(
        "BentoML 1.4.39",
        _bentoml,
        "/posteriors",
        "a worker per core, one model thread each, adaptive batching (max_batch_size 64), no access log, "
        "base64 in JSON",
        "https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html",
        wrap=_bentoml_body,
        bulk_path="/bulk",
        read=_read_bentoml,
    ),
)
