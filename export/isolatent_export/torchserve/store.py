"""The folder from which TorchServe serves bundles: models/NAME.mar, config.properties, start.sh.

Everything listens on 127.0.0.1 and nothing can be loaded over the network: TorchServe gets no security fixes any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isolatent_export.bundle import Bundle, BundleError
from isolatent_export.placing import replacing
from isolatent_export.torchserve.archive import write_archive

CONFIG = "config.properties"
START = "start.sh"
MODELS = "models"

REQUEST_BYTES = 64 * 2**20
RESPONSE_BYTES = 256 * 2**20
"""The handler refuses to make a longer answer: TorchServe would end the worker over it."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How TorchServe is to serve.

    port: of the inference API; the four after it are for management, metrics and gRPC. batch_size: requests that run
    together; batch_delay: milliseconds that the first of them waits for others.
    """

    port: int = 8080
    batch_size: int = 64
    batch_delay: int = 5


def write_store(
    bundles: Sequence[Bundle], out: str | os.PathLike[str], serving: Serving = Serving(), *, overwrite: bool = False
) -> Path:
    """Write the folder `out` for `bundles` and return its path; it is there complete or not at all.

    Raises BundleError when two bundles have one name, a bundle is not intact, or `out` exists (an older folder of this
    kind is replaced with `overwrite`, anything else never).
    """
    names = [bundle.manifest.name for bundle in bundles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BundleError(f"two bundles are named {twice[0]}; export one of them under another --name")
    with replacing(out, _is_store, overwrite=overwrite, other="another folder") as work:
        (work / MODELS).mkdir()
        for bundle in bundles:
            write_archive(bundle, work / MODELS / f"{bundle.manifest.name}.mar")
        (work / CONFIG).write_text(properties(bundles, serving))
        (work / START).write_text(_START)
        (work / START).chmod(0o755)
    return Path(out)


def properties(bundles: Sequence[Bundle], serving: Serving) -> str:
    """The content of config.properties."""
    port = serving.port
    models = {bundle.manifest.name: {bundle.manifest.version: _model(bundle, serving)} for bundle in bundles}
    return _PROPERTIES.format(
        inference=port,
        management=port + 1,
        metrics=port + 2,
        grpc_inference=port + 3,
        grpc_management=port + 4,
        archives=",".join(f"{bundle.manifest.name}.mar" for bundle in bundles),
        models=json.dumps(models, indent=2).replace("\n", "\\\n"),  # a backslash goes on in the next line
        request_bytes=REQUEST_BYTES,
        response_bytes=RESPONSE_BYTES,
        queue=1000,
    )


def _model(bundle: Bundle, serving: Serving) -> dict[str, object]:
    return {
        "defaultVersion": True,
        "marName": f"{bundle.manifest.name}.mar",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": serving.batch_size,
        "maxBatchDelay": serving.batch_delay,
        "responseTimeout": 30,
    }


def _is_store(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / MODELS).is_dir()


_PROPERTIES = """\
# TorchServe 0.12.0. It gets no security fixes any more: keep every address on 127.0.0.1, behind a proxy if need be.
inference_address=http://127.0.0.1:{inference}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_address=127.0.0.1
grpc_inference_port={grpc_inference}
grpc_management_address=127.0.0.1
grpc_management_port={grpc_management}

# Right only because of the addresses above: without it TorchServe wants a token for everything, /ping included.
disable_token_authorization=true

# These archives and no others: nothing is registered later, and nothing is fetched.
model_store=models
load_models={archives}
enable_model_api=false
allowed_urls=file:///nowhere
install_py_dep_per_model=false

# batchSize requests run together; the first of them waits maxBatchDelay milliseconds for the others.
# responseTimeout: seconds until a worker that does not answer is replaced.
models={models}
default_workers_per_model=1
number_of_gpu=0
job_queue_size={queue}

# Bytes of a body. The handler never writes a longer answer than this.
max_request_size={request_bytes}
max_response_size={response_bytes}
decode_input_request=false

metrics_mode=prometheus
disable_system_metrics=true
"""

_START = """\
#!/bin/sh
# Serve the models in this folder with TorchServe, on 127.0.0.1 only, until Ctrl-C or SIGTERM.
# Needs Java 17 and, in the Python of the `torchserve` on the PATH: pip install "isolatent[torchserve]"
set -eu
cd "$(dirname "$0")"
needs() { command -v "$1" >/dev/null || { echo "start.sh: no $1 on the PATH; $2" >&2; exit 1; }; }
needs "${JAVA_HOME:+$JAVA_HOME/bin/}java" "install it: sudo apt-get install openjdk-17-jre-headless"
needs torchserve 'install it: pip install "isolatent[torchserve]"'

# A place of its own for sockets, unpacked models and the process id: several servers do not meet.
TMPDIR=$(mktemp -d)
TEMP=$TMPDIR
export TMPDIR TEMP
unset TS_CONFIG_FILE  # it would win over config.properties
trap 'rm -rf "$TMPDIR"' EXIT

torchserve --start --foreground --ncs --ts-config config.properties --model-store models &
launcher=$!
asked=
stop() {
    asked=yes
    while kill -0 $launcher 2>/dev/null && [ ! -s "$TMPDIR/.model_server.pid" ]; do sleep 0.1; done
    kill "$(cat "$TMPDIR/.model_server.pid")" 2>/dev/null || true
}
trap stop INT TERM
wait $launcher || true  # until it ends, or a signal comes
wait $launcher || true  # it ends when Java has
[ -n "$asked" ]         # an end that nobody asked for is a failure
"""
