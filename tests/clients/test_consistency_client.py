"""Consistency through the client, against the real service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from isolatent import BadRequestError, Client, UnprocessableInputError

Array = np.ndarray[Any, np.dtype[Any]]


def test_numbers_equal_the_services_json_bit_by_bit(client: Client, service_url: str, pngs: list[Path]) -> None:
    (row,) = client.consistency(pngs[0])
    answer = httpx2.post(f"{service_url}/v1/consistency", files={"input": pngs[0].read_bytes()}).json()["data"][0]
    assert np.array_equal(np.array([answer["kl"], answer["normalized"]], np.float32), row)


def test_rows_come_in_input_order(client: Client, pngs: list[Path], pixels: Array) -> None:
    moved = client.consistency(pixels)
    assert moved.shape == (7, 2)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(client.consistency(pngs, batch_size=3), moved, rtol=1e-3)
    assert client.consistency([]).shape == (0, 2)


def test_the_number_of_copies_is_sent(client: Client, pixels: Array) -> None:
    assert not np.array_equal(client.consistency(pixels[0], samples=1), client.consistency(pixels[0], samples=2))
    with pytest.raises(BadRequestError, match="from 1 to 32"):
        client.consistency(pixels[0], samples=33)


def test_a_model_whose_transformations_are_unknown_says_so(mixed_url: str) -> None:
    cloud = np.random.default_rng(0).normal(size=(100, 3))
    with Client(mixed_url) as client, pytest.raises(UnprocessableInputError, match="'rotation'") as caught:
        client.consistency(cloud, "tiny-cloud")
    assert caught.value.code == "consistency_unavailable"
