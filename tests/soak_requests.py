"""Random requests of every kind that the service knows, some of them to be refused, and what must answer them."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from isolatent_serve import schemas
from isolatent_serve.protocol import schemas as protocol
from soak_support import MODELS, require_documented

Array = np.ndarray[Any, Any]

ENDPOINTS: dict[str, Any] = {
    "/v1/posteriors": schemas.PosteriorList,
    "/v1/embeddings": schemas.EmbeddingList,
    "/v1/reconstructions": schemas.ReconstructionList,
    "/v1/consistency": schemas.ConsistencyList,
    "/v1/decodings": schemas.DecodingList,
}
GETS: dict[str, Any] = {
    "/healthz": schemas.Status,
    "/readyz": schemas.Readiness,
    "/v1/models": schemas.ModelList,
    "/v1/models/tiny": schemas.ModelFacts,
    "/v2": protocol.ServerMetadata,
    "/v2/health/live": protocol.Live,
    "/v2/health/ready": protocol.Ready,
    "/v2/models/tiny-cloud": protocol.ModelMetadata,
    "/v2/models/tiny/versions/1/ready": protocol.ModelReady,
}
SHAPES = {"tiny": (16, 16, 1), "tiny-colour": (12, 20, 3)}
LATENT = {"tiny": 8, "tiny-colour": 6, "tiny-cloud": 8}
OF_FILES = [path for path in ENDPOINTS if path != "/v1/decodings"]
TENSORS = ("application/json", "application/x-safetensors")
BYTES = "application/octet-stream"
JSON = "application/json"
NPY = "application/x-npy"


@dataclass(frozen=True)
class Asked:
    """A request, and the statuses that its answer may have; `model` reads the JSON of a success."""

    kind: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    expected: tuple[int, ...] = (200,)
    model: Any = None
    items: int | None = None

    def check(self, answer: httpx2.Response) -> None:
        """Check the answer against this. Raises AssertionError or ValidationError."""
        assert answer.status_code in self.expected, (self.kind, self.path, answer.status_code, answer.text[:500])
        code = require_documented(answer.status_code, answer.headers, answer.content, answer.url.path)
        assert code != "internal"
        if answer.status_code == 200 and self.model and answer.headers["Content-Type"] == JSON:
            given = TypeAdapter(self.model).validate_json(answer.content)
            assert self.items in (None, len(getattr(given, "data", ()))), (self.kind, self.items)


class Samples:
    """Files of all kinds, made once."""

    @cached_property
    def pictures(self) -> list[bytes]:
        """PNG, JPEG, GIF and TIFF, of several sizes and modes."""
        numbers, files = np.random.default_rng(3), []
        for kind, mode in (("PNG", "L"), ("PNG", "RGBA"), ("PNG", "RGB"), ("JPEG", "RGB"), ("GIF", "L"), ("TIFF", "L")):
            for side in (16, 40, 90):
                pixels = numbers.integers(0, 256, (side, side + 3, 4), np.uint8)
                files.append(_file(Image.fromarray(pixels).convert(mode), kind))
        return files

    @cached_property
    def clouds(self) -> list[bytes]:
        """Text and PLY, of several sizes."""
        numbers = np.random.default_rng(4)
        rows = [[" ".join(f"{x:.4f}" for x in point) for point in numbers.normal(size=(n, 3))] for n in (64, 200, 3000)]
        header = "ply\nformat ascii 1.0\nelement vertex {}\n" + "".join(f"property float {x}\n" for x in "xyz")
        plys = [header.format(len(lines)) + "end_header\n" + "\n".join(lines) for lines in rows]
        return [text.encode() for text in ["\n".join(lines) for lines in rows] + plys]

    @cached_property
    def hostile(self) -> list[bytes]:
        """Lying headers, bombs and noise: no model can make anything of these."""
        header = b"ply\nformat binary_little_endian 1.0\nelement vertex 2000000000\nproperty float x\nend_header\n"
        npy = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        shape = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 16, 16), }"
        bomb = _file(Image.new("1", (9000, 9000)), "PNG")
        noise = np.random.default_rng(5).bytes(2000)
        return [
            bomb,
            header + b"\0" * 100,
            npy + shape.ljust(117) + b"\n" + b"\0" * 256,
            noise,
            b"II*\0" + noise,
            b"GIF89a" + noise,
            b"OFF\n99999999 1 1\n0 0 0\n",
            b"solid x\nfacet\n",
            self.pictures[0][:60],
            self.pictures[9][:300],
            b"\x89PNG\r\n\x1a\n" + noise,
            b"1 2\n3 4\n",
            b"0 0 0\n" * 70,
        ]


def _file(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def npy(array: Array) -> bytes:
    """The array as a file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def form(files: list[bytes], **fields: str) -> tuple[bytes, str]:
    """A multipart body and its media type."""
    request = httpx2.Request("POST", "http://x", data=fields, files=[("input", file) for file in files])
    return request.read(), request.headers["Content-Type"]


class Mixture:
    """An endless mixture of requests."""

    def __init__(self, samples: Samples, numbers: random.Random) -> None:
        self._samples = samples
        self._random = numbers
        self._array = np.random.default_rng(numbers.getrandbits(32))
        self._kinds: dict[Callable[[], Asked], int] = {
            self._one_file: 20,
            self._some_files: 10,
            self._json: 12,
            self._bulk: 14,
            self._decode: 8,
            self._protocol: 10,
            self._protocol_binary: 6,
            self._get: 6,
            self._partly_bad: 5,
            self._hostile: 5,
            self._wrong: 4,
        }

    def next(self) -> Asked:
        """Another request."""
        (kind,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
        return kind()

    def _files(self, model: str, count: int) -> list[bytes]:
        return self._random.choices(self._samples.clouds if model == "tiny-cloud" else self._samples.pictures, k=count)

    def _items(self, model: str, count: int) -> Array:
        if model == "tiny-cloud":
            return self._array.normal(size=(count, self._random.randint(2, 100), 3)).astype(np.float32)
        return self._array.integers(0, 256, (count, *SHAPES[model]), np.uint8)

    def _target(self, **options: str) -> tuple[str, str, Any]:
        path, model = self._random.choice(OF_FILES), self._random.choice(MODELS)
        if path == "/v1/consistency":
            options["samples"] = str(self._random.randint(1, 3))
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{path}?model={model}&{query}", model, ENDPOINTS[path]

    def _headers(self, kind: str) -> dict[str, str]:
        return {"Content-Type": kind, "Accept": self._random.choice(TENSORS)}

    def _one_file(self) -> Asked:
        path, model, answer = self._target()
        (file,) = self._files(model, 1)
        kind = self._random.choice([BYTES, "image/png", "text/plain", "model/ply"])
        return Asked("one file", path, file, self._headers(kind), model=answer, items=1)

    def _some_files(self) -> Asked:
        path, model, answer = self._target()
        count = self._random.randint(1, 12)
        body, kind = form(self._files(model, count))
        return Asked("some files", path, body, self._headers(kind), model=answer, items=count)

    def _json(self) -> Asked:
        path, model, answer = self._target(encoding_format=self._random.choice(["float", "base64"]))
        count = self._random.randint(1, 6)
        encoded = [base64.b64encode(file).decode() for file in self._files(model, count)]
        urls = [f"data:{BYTES};base64,{text}" for text in encoded]
        numbers = self._items(model, count).tolist()
        body = {"input": self._random.choice([encoded, urls, numbers])}
        return Asked("json", path, json.dumps(body).encode(), self._headers(JSON), model=answer, items=count)

    def _bulk(self) -> Asked:
        path, model, answer = self._target()
        count = self._random.randint(1, 20 if "consistency" in path else self._random.choice([8, 64, 300]))
        return Asked("bulk", path, npy(self._items(model, count)), self._headers(NPY), model=answer, items=count)

    def _decode(self) -> Asked:
        model, count = self._random.choice(MODELS), self._random.randint(1, 32)
        latents = self._array.normal(size=(count, LATENT[model])).astype(np.float32)
        path, answer = f"/v1/decodings?model={model}", schemas.DecodingList
        if self._random.random() < 0.5:
            return Asked("decode npy", path, npy(latents), self._headers(NPY), model=answer, items=count)
        body = json.dumps({"input": latents.tolist()}).encode()
        return Asked("decode json", path, body, self._headers(JSON), model=answer, items=count)

    def _protocol(self) -> Asked:
        model, count = self._random.choice(MODELS), self._random.randint(1, 4)
        tensor: dict[str, Any] = {"name": "input"}
        if self._random.random() < 0.5:
            texts = [base64.b64encode(file).decode() for file in self._files(model, count)]
            tensor |= {"datatype": "BYTES", "shape": [count], "data": texts}
        else:
            items = self._items(model, count)
            kind = "FP32" if model == "tiny-cloud" else "UINT8"
            tensor |= {"datatype": kind, "shape": items.shape, "data": items.reshape(-1).tolist()}
        names = self._random.sample(["mean", "variance", "kl", "embedding", "reconstruction", "error"], 2)
        request = {"inputs": [tensor], "outputs": [{"name": name} for name in names]}
        path = f"/v2/models/{model}/infer"
        return Asked("v2 json", path, json.dumps(request).encode(), {}, model=protocol.InferenceResponse)

    def _protocol_binary(self) -> Asked:
        model, count = self._random.choice(MODELS), self._random.randint(1, 64)
        items = self._items(model, count)
        kind, size = "FP32" if model == "tiny-cloud" else "UINT8", {"binary_data_size": items.nbytes}
        tensor = {"name": "input", "datatype": kind, "shape": items.shape, "parameters": size}
        request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        header = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        return Asked("v2 binary", f"/v2/models/{model}/infer", header + items.tobytes(), headers)

    def _get(self) -> Asked:
        path = self._random.choice([*GETS, "/metrics", "/openapi.json"])
        return Asked("get", path, model=GETS.get(path))

    def _partly_bad(self) -> Asked:
        path, model, answer = self._target(on_error="item")
        count = self._random.randint(0, 4)
        files = [*self._files(model, count), *self._random.choices(self._samples.hostile, k=2)]
        self._random.shuffle(files)
        body, kind = form(files)
        return Asked("partly bad", path, body, self._headers(kind), model=answer, items=count + 2)

    def _hostile(self) -> Asked:
        path, _, _ = self._target()
        file = self._random.choice(self._samples.hostile)
        if self._random.random() < 0.5:
            return Asked("hostile", path, file, self._headers(BYTES), (400, 413, 422))
        body = json.dumps({"input": base64.b64encode(file).decode()}).encode()
        return Asked("hostile json", path, body, self._headers(JSON), (400, 413, 422))

    def _wrong(self) -> Asked:
        path, model, _ = self._target()
        good = self._files(model, 1)[0]
        kinds = [
            Asked("empty", path, b"", self._headers(BYTES), (400,)),
            Asked("no model", path.partition("?")[0], good, self._headers(BYTES), (400,)),
            Asked("another model", "/v1/posteriors?model=other", good, self._headers(BYTES), (404,)),
            Asked("another option", f"{path}&colour=red", good, self._headers(BYTES), (400,)),
            Asked("another type", path, good, {"Content-Type": "video/mp4"}, (415,)),
            Asked("another answer", path, good, {"Content-Type": BYTES, "Accept": "text/html"}, (406,)),
            Asked("no json", path, b'{"input": [1, 2', self._headers(JSON), (400,)),
            Asked("deep json", path, b'{"input": ' + b"[" * 50_000, self._headers(JSON), (400, 422)),
            Asked("not finite", path, b'{"input": [[NaN]]}', self._headers(JSON), (400,)),
            Asked("an address", path, b'{"input": "http://127.0.0.1/x"}', self._headers(JSON), (400,)),
            Asked(
                "another shape",
                "/v1/posteriors?model=tiny",
                npy(np.zeros((2, 5, 5), np.uint8)),
                {"Content-Type": NPY},
                (422,),
            ),
            Asked("pickle", path, npy(np.array([{}], object)), self._headers(NPY), (422,)),
            Asked("wrong latents", "/v1/decodings?model=tiny", b'{"input": [1, 2]}', self._headers(JSON), (422,)),
            Asked("nowhere", "/v1/secrets", good, self._headers(BYTES), (404,)),
            Asked("wrong method", "/v1/posteriors", None, {}, (405,)),
            Asked("no tensor", "/v2/models/tiny/infer", b'{"inputs": []}', {}, (400,)),
            Asked("another dtype", "/v2/models/tiny/infer", _V2_FP64, {}, (422,)),
        ]
        return self._random.choice(kinds)


_V2_FP64 = b'{"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [0.5]}]}'


def send(client: httpx2.Client, asked: Asked) -> httpx2.Response:
    """The answer of the service to a request."""
    if asked.body is None:
        return client.get(asked.path, headers=asked.headers)
    return client.post(asked.path, content=asked.body, headers=asked.headers)
