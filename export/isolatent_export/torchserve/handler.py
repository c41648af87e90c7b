"""The handler in TorchServe's worker process: a dynamic batch in, one answer per request out, each on its own.

A bad request costs itself a problem document, and the others of its batch nothing: TorchServe would fail all of them
for one exception. The model is verified before anything is served.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from isolatent_export import parity
from isolatent_export.bundle import TORCHSCRIPT, Bundle, BundleError
from isolatent_export.inputs import Limits
from isolatent_export.inputs.geometry import PACKAGES
from isolatent_export.manifest import Manifest
from isolatent_export.outputs import Tensors
from isolatent_export.to_torchscript import TorchScriptRuntime
from isolatent_export.torchserve import answers, computing, requests
from isolatent_export.torchserve.answers import Answer
from isolatent_export.torchserve.archive import CARRIED
from isolatent_export.torchserve.requests import Refusal, Request

log = logging.getLogger("isolatent_export.torchserve")


class Context(Protocol):
    """What is used of TorchServe's ts.context.Context; `idx` is the place in the dynamic batch."""

    system_properties: dict[str, Any]

    def get_request_id(self, idx: int) -> str | None:
        """TorchServe's name for the request."""

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """The request's headers, and under the names of parameters their content types."""

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """The status of one answer."""

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """A header of one answer."""


class Handler:
    """What TorchServe calls: `initialize` once, then `handle` for every batch."""

    def initialize(self, context: Context) -> None:
        """Load and verify the model. Raises RuntimeError, which TorchServe logs, when it must not be served."""
        try:
            self._manifest, self._graphs = load(Path(context.system_properties["model_dir"]))
        except BundleError as error:
            raise RuntimeError(f"refused: {error}") from None
        self._limits = Limits()

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer per request of the batch, in its order."""
        read = [self._read(row, context.get_all_request_header(place)) for place, row in enumerate(data)]
        results = computing.run(self._graphs, read)
        contents = []
        for place, (request, result) in enumerate(zip(read, results, strict=True)):
            answer = self._answer(request, result, context.get_request_id(place))
            context.set_response_status(answer.status, answer.phrase, place)
            context.set_response_header(place, "content-type", answer.media_type)
            context.set_response_header(place, "x-batch-size", str(len(data)))
            contents.append(answer.content)
        return contents

    def _read(self, row: Mapping[str, Any], given: Mapping[str, Any]) -> Request | Refusal:
        try:
            request = requests.read(row, given, self._manifest.input, self._limits)
            answers.require_writable(request, self._manifest)
        except Refusal as refusal:
            return refusal
        except Exception:  # whatever a reader does on one file, the others of the batch get their answers
            log.exception("a request could not be read")
            return Refusal("internal", "the handler failed on this request; TorchServe's log says why")
        return request

    def _answer(self, request: Request | Refusal, result: Tensors | Refusal, request_id: str | None) -> Answer:
        if isinstance(result, Refusal):
            return answers.problem(result, request_id)
        assert isinstance(request, Request)  # a refusal is its own result
        if request.output == "model":
            return answers.model(self._manifest)
        return answers.write(result, request, self._manifest)


def load(directory: Path) -> tuple[Manifest, TorchScriptRuntime]:
    """The model in an unpacked archive, when its files are intact and it reproduces its golden outputs.

    Raises BundleError naming the file, the output or the installation that is wrong.
    """
    bundle = Bundle.open(directory)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if bundle.manifest.modality == "point_cloud" and missing:
        raise BundleError(f'{", ".join(missing)} not installed; run: pip install "isolatent[torchserve,clouds]"')
    for check in bundle.check_files():
        if check.name in CARRIED and check.problem:
            raise BundleError(f"{check.name}: {check.problem}; make the archive again: isolatent torchserve BUNDLE")
    graphs = TorchScriptRuntime(bundle.file(TORCHSCRIPT))
    rows = parity.measure(graphs, bundle.golden(), "TorchScript")
    wrong = parity.excess(rows, bundle.manifest.tolerance)
    if wrong:
        raise BundleError(f"{wrong[0]}; export the bundle again, or serve it with the torch that it was made with")
    return bundle.manifest, graphs
