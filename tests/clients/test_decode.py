"""Latents through the client, against the real service."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save

from isolatent import APIResponseError, Client, InputError, UnprocessableInputError

if TYPE_CHECKING:
    from conftest import StandIn

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="session")
def latents() -> Array:
    """Seven latents (7, 8) of float32, all different."""
    return np.random.default_rng(4).normal(size=(7, 8)).astype(np.float32)


def test_latents_become_pixels_in_their_order(client: Client, latents: Array) -> None:
    pixels = client.decode(latents)
    assert pixels.shape == (7, 16, 16, 1)
    assert pixels.dtype == np.float32
    alone = np.concatenate([client.decode(latent) for latent in latents])
    np.testing.assert_allclose(pixels, alone, atol=1e-5)
    np.testing.assert_allclose(client.decode(latents, batch_size=2), pixels, atol=1e-5)


def test_every_kind_of_numbers_is_the_same(client: Client, latents: Array) -> None:
    expected = client.decode(latents)
    torch = pytest.importorskip("torch")
    for kind in (
        latents.tolist(),
        list(latents),
        latents.astype(float),
        torch.from_numpy(latents),
        latents[:, ::-1][:, ::-1],
    ):
        assert np.array_equal(client.decode(kind), expected)


def test_latents_of_unequal_length_are_named(client: Client) -> None:
    with pytest.raises(InputError, match="latent 3 has 4 numbers, latent 2 8") as caught:
        client.decode((np.zeros(4 if index == 3 else 8) for index in range(4)), batch_size=2)
    assert (caught.value.inputs, caught.value.indices) == (("latent 3",), (3,))


def test_a_decoded_mean_is_the_reconstruction(client: Client, pngs: list[Path]) -> None:
    decoded = client.decode(client.posterior(pngs[0]).mean)
    np.testing.assert_allclose(decoded[0], client.reconstruct(pngs[0]), atol=1e-5)


def test_latents_of_a_cloud_model_become_points(mixed_url: str, latents: Array) -> None:
    with Client(mixed_url) as client:
        assert client.decode(latents, "tiny-cloud").shape == (7, 49, 3)
        assert client.decode(latents, "tiny").shape == (7, 16, 16, 1)


@pytest.mark.parametrize(
    "value", [[], np.empty((0, 8)), np.zeros((1, 2, 8)), 3.0, "z", [[1, 2], [3]], [1j], [np.nan] * 8, [[1.0], [np.inf]]]
)
def test_what_is_no_latent_is_refused_before_it_is_sent(value: Any) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InputError, match="latent"):
        client.decode(value)


def test_latents_of_another_length_are_refused_with_the_right_one(client: Client) -> None:
    with pytest.raises(UnprocessableInputError, match=r"\(N, 8\)") as caught:
        client.decode(np.zeros((2, 9)))
    assert caught.value.code == "wrong_shape"


def test_a_latent_that_the_service_cannot_use_is_named(client: Client, latents: Array) -> None:
    huge = latents.astype(float)
    huge[5] = 1e300
    with pytest.raises(UnprocessableInputError) as caught:
        client.decode(huge, batch_size=4)
    assert [error.index for error in caught.value.errors] == [5]


def test_latents_travel_as_one_array(stand_in: StandIn, latents: Array) -> None:
    stand_in.reply(200, save({"decoding": np.zeros((7, 5, 3), np.float32)}), content_type="application/x-safetensors")
    with Client(stand_in.url) as client:
        assert client.decode(latents, "m").shape == (7, 5, 3)
    path, headers, body = stand_in.requests[0]
    assert (path, headers["Content-Type"]) == ("/v1/decodings?model=m", "application/x-npy")
    assert np.array_equal(np.load(io.BytesIO(body)), latents)


def test_an_answer_with_too_few_decodings_is_named(stand_in: StandIn, latents: Array) -> None:
    stand_in.reply(200, save({"decoding": np.zeros((6, 5, 3), np.float32)}), content_type="application/x-safetensors")
    with Client(stand_in.url) as client, pytest.raises(APIResponseError, match="expected 7 rows"):
        client.decode(latents)
