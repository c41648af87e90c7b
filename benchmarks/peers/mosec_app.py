"""The encoder under mosec.

python mosec_app.py --port 8000
"""

from __future__ import annotations

import os

from common import Array, decode, onnx_encoder, posteriors
from mosec import Server, Worker


class Encoder(Worker):
    """One process: it decodes, runs and encodes whole batches."""

    def __init__(self) -> None:
        self.encode = onnx_encoder()

    def deserialize(self, data: bytes) -> Array:
        """Body -> pixels."""
        return decode(data)

    def forward(self, data: list[Array]) -> list[bytes]:
        """Pixels of many requests -> their answers."""
        return posteriors(self.encode, data)

    def serialize(self, data: bytes) -> bytes:
        """Bytes they are already."""
        return data


if __name__ == "__main__":
    server = Server()
    # max_wait_time: 1 ms is the shortest that can be set.
    server.append_worker(Encoder, num=int(os.environ["WORKERS"]), max_batch_size=64, max_wait_time=1)
    server.run()
