"""The encoder under BentoML. A batchable API takes and gives lists: base64 in JSON is the leanest that they can hold.

bentoml serve bentoml_app:Encoder --port 8000
"""

from __future__ import annotations

import base64
import os

import bentoml
from common import decode, onnx_encoder, posteriors


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class Encoder:
    """One process per worker."""

    def __init__(self) -> None:
        self.encode = onnx_encoder()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=int(os.environ["MAX_LATENCY_MS"]))
    def posteriors(self, inputs: list[str]) -> list[str]:
        """Files in base64 -> float32 in base64."""
        return self._answers(inputs)

    @bentoml.api
    def bulk(self, inputs: list[str]) -> list[str]:
        """The same for what is a batch already: the dispatcher would take its time for that of one picture."""
        return self._answers(inputs)

    def _answers(self, inputs: list[str]) -> list[str]:
        pixels = [decode(base64.b64decode(each)) for each in inputs]
        return [base64.b64encode(each).decode() for each in posteriors(self.encode, pixels)]
