"""Each bad request: its status, its code, and a detail that names the remedy."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest

Array = np.ndarray[Any, Any]
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
NPY = {"Content-Type": "application/x-npy"}


def refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, after checking that it is well-formed."""
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["type"] == f"urn:isolatent:problem:{code}"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def post(client: httpx2.Client, **body: Any) -> httpx2.Response:
    return client.post("/v1/posteriors", params={"model": "tiny"}, **body)


def test_a_truncated_png_is_undecodable(client: httpx2.Client, png: bytes) -> None:
    problem = refused(post(client, content=png[:-40], headers=PNG), 422, "undecodable")
    assert problem["errors"][0]["pointer"] == "/input"


def test_a_text_file_named_png_is_undecodable(client: httpx2.Client) -> None:
    files = {"input": ("digit.png", b"not a picture", "image/png")}
    problem = refused(post(client, files=files), 422, "undecodable")
    assert problem["errors"][0]["pointer"] == "/input/0"


def test_the_bad_one_among_many_is_named(client: httpx2.Client, pngs: list[bytes]) -> None:
    files = [("input", png) for png in (*pngs[:3], b"bad", pngs[3], b"")]
    problem = refused(post(client, files=files), 422, "undecodable")
    assert [error["pointer"] for error in problem["errors"]] == ["/input/3", "/input/5"]
    assert "input 3" in problem["detail"]
    assert "on_error=item" in problem["detail"]


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (16, 16, 3), (2, 15, 16), (16,), (), (2, 2, 16, 16, 1)])
def test_an_npy_of_another_shape_is_refused(
    client: httpx2.Client, npy: Callable[[Array], bytes], shape: tuple[int, ...]
) -> None:
    problem = refused(post(client, content=npy(np.zeros(shape, np.uint8)), headers=NPY), 422, "wrong_shape")
    assert "(N, 16, 16, 1)" in problem["detail"] or "(16, 16, 1)" in problem["detail"]


@pytest.mark.parametrize("shape", [(16, 16, 3), (2, 16, 16, 3), (4, 4)])
def test_numbers_of_another_shape_are_refused(client: httpx2.Client, shape: tuple[int, ...]) -> None:
    refused(post(client, json={"input": np.zeros(shape, int).tolist()}), 422, "wrong_shape")


@pytest.mark.parametrize(
    "numbers", [[[0.5] * 16] * 16, [[-1] * 16] * 16, [[256] * 16] * 16, [[1e300] * 16] * 16, [[2**63] * 16] * 16]
)
def test_numbers_that_are_no_pixels_are_refused(client: httpx2.Client, numbers: list[Any]) -> None:
    problem = refused(post(client, json={"input": numbers}), 422, "wrong_dtype")
    assert "0..255" in problem["detail"]


@pytest.mark.parametrize(
    "value",
    [5, True, {}, {"a": 1}, [1, 2], [[]], [None], [[1, 2], [3]], [["1"] * 16] * 16, [[{}] * 16] * 16, [[[[[1]]]]]],
)
def test_json_that_is_no_input_is_refused(client: httpx2.Client, value: Any) -> None:
    assert post(client, json={"input": value}).json()["code"] in ("undecodable", "wrong_shape")


@pytest.mark.parametrize("text", ["%%%", "abc", "data:image/png,abc", "data:image/png;base64,a", "ä", "YWJj\n"])
def test_text_that_is_no_base64_is_undecodable(client: httpx2.Client, text: str) -> None:
    refused(post(client, json={"input": text}), 422, "undecodable")


def test_long_strings_among_numbers_take_no_memory(client: httpx2.Client) -> None:
    # NumPy would make room for the longest string 256 times.
    numbers: list[list[Any]] = [[0] * 16 for _ in range(16)]
    numbers[0][0] = "x" * 10_000_000
    refused(post(client, json={"input": [numbers]}), 422, "undecodable")


def test_an_empty_body_is_refused(client: httpx2.Client) -> None:
    for media_type in ("image/png", "application/json", "application/x-npy", "multipart/form-data; boundary=x"):
        refused(post(client, content=b"", headers={"Content-Type": media_type}), 400, "empty_body")


def test_no_input_at_all_is_refused(client: httpx2.Client) -> None:
    for body in ({}, {"input": None}):
        refused(post(client, json=body), 400, "missing_input")
    refused(post(client, files={"model": (None, "tiny")}), 400, "missing_input")


@pytest.mark.parametrize(("body", "code"), [([], "empty_input"), ("", "empty_input"), ([""], "empty_input")])
def test_empty_inputs_are_refused(client: httpx2.Client, body: Any, code: str) -> None:
    refused(post(client, json={"input": body}), 422, code)


def test_an_npy_of_no_items_is_refused(client: httpx2.Client, npy: Callable[[Array], bytes]) -> None:
    refused(post(client, content=npy(np.zeros((0, 16, 16), np.uint8)), headers=NPY), 422, "empty_input")


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b'"x"', b"\xff", b'{"input": NaN}', b'{"input": [[1e999]]}', b'{"input": [[Infinity]]}', b"\0"],
)
def test_malformed_json_is_refused(client: httpx2.Client, text: bytes) -> None:
    refused(post(client, content=text, headers=JSON), 400, "malformed_json")


def test_json_nested_a_hundred_thousand_deep_is_refused(client: httpx2.Client) -> None:
    text = b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refused(post(client, content=text, headers=JSON), 400, "malformed_json")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"--x\r\n\r\n--x--\r\n", "multipart/form-data"),
        (b"nothing of the kind", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\nabc', "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    ],
)
def test_malformed_multipart_is_refused(client: httpx2.Client, content: bytes, content_type: str) -> None:
    refused(post(client, content=content, headers={"Content-Type": content_type}), 400, "malformed_multipart")


def test_form_fields_are_short_and_given_once(client: httpx2.Client, png: bytes) -> None:
    refused(post(client, data={"user": "x" * 2000}, files={"input": png}), 400, "malformed_multipart")
    twice = [("model", (None, "tiny")), ("model", (None, "tiny")), ("input", png)]
    refused(post(client, files=twice), 400, "malformed_multipart")


def test_unknown_fields_are_refused(client: httpx2.Client, png: bytes) -> None:
    problem = refused(post(client, json={"input": "", "colour": 1}), 400, "unknown_field")
    assert problem["errors"][0]["pointer"] == "/colour"
    assert "encoding_format" in problem["detail"]
    refused(post(client, data={"inputs": "x"}, files={"input": png}), 400, "unknown_field")
    refused(post(client, json={"input": "", "dimensions": 8}), 400, "unknown_field")


def test_unknown_query_parameters_are_refused(client: httpx2.Client, png: bytes) -> None:
    response = client.post("/v1/posteriors?model=tiny&colour=1", content=png, headers=PNG)
    assert "colour" in refused(response, 400, "unknown_field")["detail"]


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("encoding_format", "hex", "unknown_encoding_format"),
        ("encoding_format", 1, "unknown_encoding_format"),
        ("encoding_format", [], "unknown_encoding_format"),
        ("on_error", "ignore", "invalid_option"),
        ("dimensions", 7, "invalid_option"),
        ("dimensions", "8", None),
        ("dimensions", True, "invalid_option"),
        ("model", 5, "invalid_option"),
        ("model", "x" * 300, "invalid_option"),
        ("user", "someone", None),
    ],
)
def test_options_are_checked(client: httpx2.Client, png: bytes, option: str, value: Any, code: str | None) -> None:
    body = {"model": "tiny", "input": base64.b64encode(png).decode(), option: value}
    response = client.post("/v1/embeddings", json=body)
    if code is None:
        assert response.status_code == 200
    else:
        assert refused(response, 400, code)["errors"][0]["pointer"] == f"/{option}"


def test_an_unknown_model_is_refused_with_the_known_ones(client: httpx2.Client, png: bytes) -> None:
    problem = refused(client.post("/v1/posteriors?model=big", files={"input": png}), 404, "model_not_found")
    assert "tiny, tiny-colour, tiny-cloud" in problem["detail"]


def test_no_model_among_several_is_refused_with_their_names(client: httpx2.Client, png: bytes) -> None:
    problem = refused(client.post("/v1/posteriors", files={"input": png}), 400, "model_required")
    assert "tiny, tiny-colour, tiny-cloud" in problem["detail"]


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", "FTP:x"])
def test_network_addresses_are_refused(client: httpx2.Client, url: str) -> None:
    for value in (url, [url]):
        refused(post(client, json={"input": value}), 400, "urls_refused")


def npy_header(text: str, body: bytes = b"") -> bytes:
    header = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000)}", "undecodable"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 16, 16)}", "undecodable"),
        pytest.param(
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': (0x{'f' * 9000}, 3)}}", "undecodable", id="huge"
        ),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (16, 16)}", "wrong_dtype"),
        ("{'descr': '>f4', 'fortran_order': False, 'shape': (16, 16)}", "wrong_dtype"),
        ("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (16, 16)}", "wrong_dtype"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (16, 16)}", "wrong_dtype"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': ", "undecodable"),
        ("__import__('os').system('true')", "undecodable"),
        ("(" * 110, "undecodable"),
    ],
)
def test_hostile_npy_headers_are_refused(client: httpx2.Client, header: str, code: str) -> None:
    for media_type in ("application/x-npy", "application/octet-stream"):
        response = post(client, content=npy_header(header, b"\0" * 256), headers={"Content-Type": media_type})
        refused(response, 422, code)


def test_npy_floats_are_refused(client: httpx2.Client, npy: Callable[[Array], bytes]) -> None:
    refused(post(client, content=npy(np.zeros((16, 16), np.float32)), headers=NPY), 422, "wrong_dtype")


def test_unknown_and_missing_content_types_are_refused(client: httpx2.Client, png: bytes) -> None:
    for media_type in ("text/csv", "application/x-www-form-urlencoded", "modelling/obj", "nonsense", ""):
        response = post(client, content=png, headers={"Content-Type": media_type})
        assert "application/json" in refused(response, 415, "unsupported_media_type")["detail"]
    refused(post(client, content=png), 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_bodies_are_refused(client: httpx2.Client, png: bytes, coding: str) -> None:
    problem = refused(
        post(client, content=png, headers={**PNG, "Content-Encoding": coding}), 415, "unsupported_media_type"
    )
    assert "uncompressed" in problem["detail"]


def test_a_wrong_method_is_refused_with_the_right_one(client: httpx2.Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        response = client.request(method, "/v1/posteriors")
        assert "POST" in refused(response, 405, "method_not_allowed")["detail"]
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/posterior", "/v1/models/", "/v1/models/tiny/x", "/%00", "/..%2f"])
def test_unknown_addresses_are_problems_too(client: httpx2.Client, path: str) -> None:
    assert "/openapi.json" in refused(client.get(path), 404, "not_found")["detail"]


def test_errors_of_embeddings_have_the_shape_openai_clients_read(client: httpx2.Client) -> None:
    problem = refused(client.post("/v1/embeddings", json={"model": "big", "input": ""}), 404, "model_not_found")
    assert problem["error"] == {
        "message": problem["detail"],
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }
    assert "error" not in client.post("/v1/posteriors", json={"model": "big", "input": ""}).json()


def test_a_good_request_id_is_echoed(client: httpx2.Client) -> None:
    for path in ("/healthz", "/nowhere"):
        response = client.get(path, headers={"X-Request-Id": "order-66_a.b"})
        assert response.headers.get_list("X-Request-Id") == ["order-66_a.b"]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "ä", '{"a":1}', "a\tb"])
def test_a_bad_request_id_is_replaced(client: httpx2.Client, bad: str) -> None:
    response = client.get("/healthz", headers={"X-Request-Id": bad.encode()})
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.status_code == 200
