"""The encoder under LitServe.

python litserve_app.py 8000
"""

import os
import sys
from typing import Annotated

import litserve
from common import Array, decode, onnx_encoder, posteriors
from fastapi import Body, Response


class Encoder(litserve.LitAPI):
    """Decodes, batches as they queue up (batch_timeout 0 waits for nobody) and answers bytes."""

    def setup(self, _device: str) -> None:
        """Load the model, once per process."""
        self.encode = onnx_encoder()

    def decode_request(self, request: Annotated[bytes, Body()]) -> Array:
        """Body -> pixels."""
        return decode(request)

    def batch(self, inputs: list[Array]) -> list[Array]:
        """The pixels of several requests stay apart: `posteriors` joins and splits them."""
        return inputs

    def predict(self, x: list[Array]) -> list[bytes]:
        """Pixels of many requests -> their answers."""
        return posteriors(self.encode, x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """One answer per request already."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Bytes, without JSON around them."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Encoder(max_batch_size=64, batch_timeout=float(os.environ["BATCH_TIMEOUT"]))
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(os.environ["WORKERS"]),
        fast_queue=os.environ["FAST_QUEUE"] == "1",
    )
    servers = int(os.environ["API_SERVERS"])
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=servers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
