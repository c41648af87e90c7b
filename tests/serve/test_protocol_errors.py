"""The Open Inference Protocol without trust: lengths, shapes and types that lie, in its own kind of error."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest

from engine_support import busy, ready_app
from isolatent_export import Bundle
from isolatent_serve import Settings, create_app
from protocol_support import INFER, pixels, post_binary, refused

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "BF16", "INT8", "INT32", "BOOL", "uint8", "", "x" * 999])
def test_another_datatype_is_refused(client: httpx2.Client, datatype: str) -> None:
    refused(client.post(INFER, json=pixels(datatype=datatype)), 422, "the model takes UINT8", "BYTES")


@pytest.mark.parametrize(
    "shape", [[256], [1, 256], [16, 16, 1], [1, 16, 16, 3], [2, 16, 16, 1], [], [2**31 - 1] * 8, [1, 8, 32, 1]]
)
def test_another_shape_is_refused_in_json_and_binary(client: httpx2.Client, shape: list[int]) -> None:
    refused(client.post(INFER, json=pixels(shape=shape)), 422, "shape")
    request = pixels(shape=shape, data=None, parameters={"binary_data_size": 256})
    refused(post_binary(client, request, bytes(256)), 422, "shape")


@pytest.mark.parametrize("shape", [[0], [0, 16, 16, 1], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1], [1, 0, 0, 0]])
def test_no_elements_are_refused(client: httpx2.Client, shape: list[int]) -> None:
    refused(client.post(INFER, json=pixels(shape=shape, data=[])), 422, "at least one")
    request = pixels(shape=shape, data=None, parameters={"binary_data_size": 0})
    refused(post_binary(client, request, b""), 422, "at least one")
    refused(client.post(INFER, json=pixels(datatype="BYTES", shape=[0], data=[])), 422, "at least one")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [-1, 16, 16, 1]},
        {"shape": [1, 16, 16, 1] * 3},
        {"shape": [2**64, 16, 16, 1]},
        {"shape": [1.0, 16, 16, 1]},
        {"shape": [True, 16, 16, 1]},
        {"shape": "1"},
        {"shape": None},
        {"name": None},
        {"name": "images"},
        {"name": 5},
        {"datatype": None},
        {"datatype": ["UINT8"]},
        {"data": None},
        {"data": 5},
        {"data": {"0": 1}},
        {"parameters": []},
        {"parameters": {"binary_data_size": 256}},
        {"parameters": {"binary_data_size": -1}},
        {"parameters": {"binary_data_size": "256"}},
        {"parameters": {"binary_data_size": 2**80}},
    ],
)
def test_inputs_that_are_none_are_refused(client: httpx2.Client, changes: dict[str, Any]) -> None:
    refused(client.post(INFER, content=json.dumps(pixels(**changes))), 400)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([0] * 255, "elements"),
        ([0] * 257, "elements"),
        ([[0] * 16] * 16, "elements"),
        ([[[[0]] * 16] * 15 + [[[0]] * 15]], "elements"),
        ([[[[0] * 16]] * 16], "elements"),
        ([256] * 256, "0..255"),
        ([-1] * 256, "0..255"),
        ([2**63] * 256, "0..255"),
        ([0.5] * 256, "whole numbers"),
        ([True] * 256, "whole numbers"),
        (["0"] * 256, "whole numbers"),
        ([None] * 256, "whole numbers"),
        ([0] * 255 + [{}], "whole numbers"),
        ([0] * 255 + [[0]], "whole numbers"),
    ],
)
def test_elements_that_are_no_pixels_are_refused(client: httpx2.Client, data: Any, words: str) -> None:
    refused(client.post(INFER, json=pixels(data=data)), 422, words)


def test_nested_elements_are_the_flat_ones(client: httpx2.Client, grey: Array) -> None:
    flat, nested = ({"data": elements.tolist()} for elements in (grey.reshape(-1), grey[None, ..., None]))
    assert client.post(INFER, json=pixels(**flat)).json() == client.post(INFER, json=pixels(**nested)).json()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused(client: httpx2.Client, bad: float) -> None:
    cloud = np.random.default_rng(3).normal(size=(2, 100, 3)).astype(np.float32)
    cloud[1, 5, 2] = bad
    request = pixels(datatype="FP32", shape=list(cloud.shape), data=None, parameters={"binary_data_size": cloud.nbytes})
    response = post_binary(client, request, cloud.tobytes(), path="/v2/models/tiny-cloud/infer")
    refused(response, 422, "NaN or infinite")


def test_json_points_beyond_float32_are_refused(client: httpx2.Client) -> None:
    request = pixels(datatype="FP32", shape=[1, 2, 3], data=[0, 0, 0, 1e300, 0, 0])
    refused(client.post("/v2/models/tiny-cloud/infer", json=request), 422, "NaN or infinite")
    for text in ("NaN", "1e999", "Infinity"):
        body = json.dumps(request).replace("1e+300", text)
        refused(client.post("/v2/models/tiny-cloud/infer", content=body), 400, "JSON")


@pytest.mark.parametrize(
    ("size", "data", "length"),
    [
        (256, 0, None),  # missing
        (256, 255, None),
        (256, 257, None),  # trailing
        (0, 256, None),
        (None, 256, None),  # no size
        (2**62, 256, None),
        (256, 256, 0),  # the length of the JSON lies
        (256, 256, 1),
        (256, 256, 10**6),
        (256, 256, 10**30),
        (256, 256, "-5"),
        (256, 256, "0x10"),
        (256, 256, "1_0"),
        (256, 256, ""),
    ],
)
def test_lengths_that_lie_are_refused(client: httpx2.Client, size: int | None, data: int, length: Any) -> None:
    parameters = {} if size is None else {"binary_data_size": size}
    request = pixels(data=None, parameters=parameters)
    refused(post_binary(client, request, bytes(data), length=length), 400)


def test_binary_data_beside_data_is_refused(client: httpx2.Client) -> None:
    request = pixels(parameters={"binary_data_size": 256})
    refused(post_binary(client, request, bytes(256)), 400, "either")
    refused(client.post(INFER, json=request), 400, "binary_data_size")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        struct.pack("<I", 5) + b"abcd",
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 1) + b"a",
        struct.pack("<I", 1) + b"a" + struct.pack("<I", 0) + b"!",
        struct.pack("<I", 1) + b"a" + struct.pack("<I", 0) * 2,
    ],
)
def test_elements_of_bytes_that_lie_are_refused(client: httpx2.Client, data: bytes) -> None:
    request = pixels(datatype="BYTES", shape=[2], data=None, parameters={"binary_data_size": len(data)})
    refused(post_binary(client, request, data), 422)


@pytest.mark.parametrize("data", [[5], [None], [["eA=="]], ["http://example.com/a.png"], ["%%%"], [""]])
def test_strings_that_are_no_files_are_refused(client: httpx2.Client, data: list[Any]) -> None:
    response = client.post(INFER, json=pixels(datatype="BYTES", shape=[1], data=data))
    assert response.status_code in (400, 422)
    refused(response, response.status_code)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"inputs": 5}',
        b'{"inputs": []}',
        b'{"inputs": [5]}',
        b'{"inputs": {}}',
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        orjson.dumps({"inputs": pixels()["inputs"] * 2}),
        orjson.dumps(pixels() | {"outputs": 5}),
        orjson.dumps(pixels() | {"outputs": [{}]}),
        orjson.dumps(pixels() | {"outputs": [{"name": "mean", "parameters": {"binary_data": 1}}]}),
        orjson.dumps(pixels() | {"parameters": {"binary_data_output": "yes"}}),
        orjson.dumps(pixels() | {"id": 5}),
    ],
)
def test_requests_that_are_none_are_refused(client: httpx2.Client, text: bytes) -> None:
    refused(client.post(INFER, content=text), 400)


def test_other_addresses_and_methods_are_refused_in_the_protocols_shape(client: httpx2.Client) -> None:
    refused(client.get(INFER), 405, "POST")
    refused(client.get("/v2/models/big"), 404, "served are")
    refused(client.get("/v2/models/tiny/stats"), 404, "/openapi.json")
    refused(client.post("/v2/repository/index", content=b"x"), 400)
    assert client.get("/v2x").headers["Content-Type"] == "application/problem+json"


def test_limits_hold_here_too(start: Callable[..., str], png: bytes) -> None:
    url = start(items=2, request_bytes=20_000, item_bytes=300)
    with httpx2.Client(base_url=url) as client:
        refused(client.post(INFER, json=pixels(shape=[3, 16, 16, 1], data=[0] * 768)), 413, "the limit is 2")
        refused(client.post(INFER, content=b" " * 20_001), 413, "20000")
        three = b"".join(struct.pack("<I", len(png)) + png for _ in range(3))
        request = pixels(datatype="BYTES", shape=[3], data=None, parameters={"binary_data_size": len(three)})
        refused(post_binary(client, request, three), 413, "3 items")
        request = pixels(datatype="BYTES", shape=[1], data=None, parameters={"binary_data_size": 405})
        refused(post_binary(client, request, struct.pack("<I", 401) + bytes(401)), 413, "401 bytes")


def test_inputs_and_answers_take_bounded_memory_here_too(start: Callable[..., str]) -> None:
    with httpx2.Client(base_url=start(decoded_bytes=600)) as client:
        refused(client.post(INFER, json=pixels(shape=[3, 16, 16, 1], data=[0] * 768)), 413, "at most 2")
        assert client.post(INFER, json=pixels()).status_code == 200
        refused(client.post(INFER, json=pixels() | {"outputs": [{"name": "error"}]}), 413, "the limit is 600")


def test_the_deadline_holds_here_too(start: Callable[..., str]) -> None:
    url = start(deadline_seconds=0.000001)
    refused(httpx2.post(url + INFER, json=pixels()), 504, "not done within")


def test_a_full_queue_and_the_end_of_the_service_are_errors_of_the_protocol_with_the_time_to_come_back(
    bundle_path: Path,
) -> None:
    async def check() -> None:
        async with ready_app(Settings(device="cpu", queue_items=4), bundle_path) as (app, client, engine):
            async with busy(engine, 4, 0.5):
                refused(full := await client.post(INFER, json=pixels()), 429, "4 inputs wait for model tiny")
            assert (await client.post(INFER, json=pixels())).status_code == 200
            app.state.service.drain()
            refused(late := await client.post(INFER, json=pixels()), 503, "the service is ending")
            for address in ("/v2/health/ready", "/v2/models/tiny/ready"):
                refused(await client.get(address), 503, "the service is ending")
            assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert int(full.headers["Retry-After"]) >= 1
        assert int(late.headers["Retry-After"]) >= 1

    asyncio.run(check())


def test_before_it_is_ready_the_service_says_so(bundle_path: Path) -> None:
    async def check() -> None:
        app = create_app(Settings(device="cpu"), [Bundle.open(bundle_path)])
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as client:
            for address in ("/v2/health/ready", "/v2/models/tiny/ready"):
                refused(early := await client.get(address), 503, "being verified")
                assert early.headers["Retry-After"] == "1"
            refused(await client.post(INFER, json=pixels()), 503, "being verified")
            assert (await client.get("/v2/models/tiny")).json()["versions"] == ["1"]
            (entry,) = (await client.post("/v2/repository/index")).json()
            assert entry == {"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "being verified"}
            assert (await client.post("/v2/repository/index", json={"ready": True})).json() == []

    asyncio.run(check())
