"""A bare FastAPI route around the encoder: what a service is without batching, limits or anything else.

uvicorn fastapi_app:app --workers 2
"""

from __future__ import annotations

from common import decode, onnx_encoder, posteriors
from fastapi import FastAPI, Request, Response

app = FastAPI()
encode = onnx_encoder()


@app.get("/health")
async def health() -> Response:
    """Loaded."""
    return Response()


@app.post("/posteriors")
async def predict(request: Request) -> Response:
    """One request at a time: handing so little work to a thread would cost more than it gives."""
    (answer,) = posteriors(encode, [decode(await request.body())])
    return Response(answer, media_type="application/octet-stream")
