"""The client against the real service."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from isolatent import (
    BadRequestError,
    Client,
    InputError,
    NotFoundError,
    Posterior,
    RequestTooLargeError,
    UnprocessableInputError,
)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def test_a_posterior_has_the_models_numbers_and_name(client: Client, pngs: list[Path]) -> None:
    p = client.posterior(pngs[0])
    assert (p.mean.shape, p.variance.shape, p.model, p.version) == ((8,), (8,), "tiny", "1")
    assert p.mean.dtype == p.variance.dtype == np.float32
    log_variance = np.log(p.variance)
    assert p.kl == pytest.approx(0.5 * np.sum(p.mean**2 + p.variance - 1 - log_variance), rel=1e-4)


def test_numbers_equal_the_services_json_bit_by_bit(client: Client, service_url: str, pngs: list[Path]) -> None:
    p = client.posterior(pngs[0])
    answer = httpx2.post(f"{service_url}/v1/posteriors", files={"input": pngs[0].read_bytes()}).json()["data"][0]
    assert np.array_equal(np.array(answer["mean"], np.float32), p.mean)
    assert np.array_equal(np.array(answer["variance"], np.float32), p.variance)
    assert np.float32(answer["kl"]) == np.float32(p.kl)


def every_kind(path: Path, picture: Pixels) -> Iterator[object]:
    yield path
    yield str(path)
    yield path.read_bytes()
    yield bytearray(path.read_bytes())
    yield path.open("rb")
    yield io.BytesIO(path.read_bytes())
    yield Image.open(path)
    yield Image.fromarray(picture)
    yield picture
    yield picture[:, :, None]
    yield np.asfortranarray(picture)
    npy = io.BytesIO()
    np.save(npy, picture)
    yield npy.getvalue()


def test_every_kind_of_input_gives_the_same_posterior(client: Client, pngs: list[Path], pixels: Pixels) -> None:
    kinds = list(every_kind(pngs[2], pixels[2]))
    posteriors = [client.posterior(kind) for kind in kinds]  # type: ignore[arg-type]
    for kind in kinds:
        if hasattr(kind, "close"):
            kind.close()
    assert set(posteriors) == {posteriors[0]}


def test_kinds_may_be_mixed_in_one_batch(client: Client, pngs: list[Path], pixels: Pixels) -> None:
    mixed = client.embed([pngs[0], pixels[1], pngs[2].read_bytes()])
    np.testing.assert_allclose(mixed, client.embed(pixels[:3]), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_embeddings_come_in_input_order_whatever_the_batch_size(
    client: Client, pixels: Pixels, batch_size: int
) -> None:
    alone = np.stack([client.posterior(picture).mean for picture in pixels])
    embedded = client.embed(list(pixels), batch_size=batch_size)
    assert embedded.shape == (7, 8)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, alone, atol=1e-5)


def test_posteriors_come_in_input_order(client: Client, pngs: list[Path]) -> None:
    posteriors = client.posteriors(iter(pngs), batch_size=3)
    assert len(posteriors) == 7
    for path, posterior in zip(pngs, posteriors, strict=True):
        assert isinstance(posterior, Posterior)
        np.testing.assert_allclose(posterior.mean, client.posterior(path).mean, atol=1e-5)


def test_one_input_gives_one_row_and_a_batch_of_pixels_many(client: Client, pngs: list[Path], pixels: Pixels) -> None:
    assert client.embed(pngs[0]).shape == (1, 8)
    assert client.embed(pixels[0]).shape == (1, 8)
    assert client.embed(pixels).shape == (7, 8)
    assert client.embed(pixels[:, :, :, None]).shape == (7, 8)


def test_no_inputs_give_no_rows_of_the_right_width(client: Client, two_models_url: str) -> None:
    assert client.embed([]).shape == (0, 8)
    assert client.posteriors([]) == []
    with Client(two_models_url) as two:
        assert two.embed([], model="tiny-colour").shape == (0, 6)
        with pytest.raises(InputError, match="tiny, tiny-colour"):
            two.embed([])


def test_a_generator_is_read_batch_by_batch(client: Client, pixels: Pixels) -> None:
    read: list[int] = []

    def source() -> Iterator[Pixels]:
        for index, picture in enumerate(pixels):
            read.append(index)
            yield picture
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        client.embed(source(), batch_size=2)
    assert read == list(range(7))


def test_a_batch_size_below_one_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="batch_size=0, expected 1 or more"):
        client.embed([], batch_size=0)


def test_several_inputs_are_no_single_one(client: Client, pixels: Pixels) -> None:
    with pytest.raises(InputError, match=r"use posteriors\(\)"):
        client.posterior(pixels)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a list of several inputs; use reconstructions\(\)"):
        client.reconstruct([pixels[0]])  # type: ignore[arg-type]


def test_a_reconstruction_is_a_picture_in_0_to_1(client: Client, pngs: list[Path]) -> None:
    picture = client.reconstruct(pngs[0])
    assert picture.shape == (16, 16, 1)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() <= picture.max() <= 1
    assert picture.flags.writeable
    assert client.embed(pngs[0]).flags.writeable


def test_a_reconstruction_as_png_shows_the_same_picture(two_models_url: str, tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "noise.png")
    with Client(two_models_url) as client:
        picture = client.reconstruct(tmp_path / "noise.png", "tiny-colour")
        png = client.reconstruct_file(tmp_path / "noise.png", "png", "tiny-colour")
    shown = np.asarray(Image.open(io.BytesIO(png)))
    assert shown.shape == picture.shape == (12, 20, 3)
    np.testing.assert_allclose(shown / 255, picture, atol=0.5001 / 255)


def test_models_tell_what_they_take(two_models_url: str) -> None:
    with Client(two_models_url) as client:
        tiny, colour = client.models()
        assert client.model("tiny-colour") == colour
    assert (tiny.id, tiny.version, tiny.modality, tiny.ready, tiny.latent_size) == ("tiny", "1", "image", True, 8)
    assert (colour.input["height"], colour.input["width"], colour.input["channels"]) == (12, 20, 3)
    assert tiny.provider == "CPUExecutionProvider"
    assert tiny.metrics == {"nll": 1.5}


def test_the_service_is_ready(client: Client) -> None:
    assert client.ready() is True


def test_the_model_must_be_named_where_there_are_two(two_models_url: str, pngs: list[Path]) -> None:
    with Client(two_models_url) as client, pytest.raises(BadRequestError, match="tiny-colour") as caught:
        client.posterior(pngs[0])
    assert caught.value.code == "model_required"


def test_an_unknown_model_is_not_found_and_the_known_are_listed(client: Client, pngs: list[Path]) -> None:
    with pytest.raises(NotFoundError, match="tiny") as caught:
        client.posterior(pngs[0], model="huge")
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)
    assert caught.value.request_id
    with pytest.raises(NotFoundError):
        client.model("no/such")


def test_an_undecodable_file_is_named_with_its_place(client: Client, pngs: list[Path]) -> None:
    pngs[5].write_bytes(b"this is no picture")
    with pytest.raises(UnprocessableInputError) as caught:
        client.embed(pngs, batch_size=4)
    (error,) = caught.value.errors
    assert error.index == 5
    assert f"422 undecodable: input 5 ({pngs[5]}): not an image" in str(caught.value)
    assert "input 1" not in str(caught.value)
    assert caught.value.inputs == tuple(map(str, pngs[4:]))


def test_pixels_of_another_size_are_refused_with_the_models(client: Client) -> None:
    with pytest.raises(UnprocessableInputError, match="16, 16") as caught:
        client.embed(np.zeros((5, 20, 20), np.uint8))
    assert caught.value.code == "wrong_shape"


def test_too_many_inputs_at_once_are_too_large(client: Client) -> None:
    with pytest.raises(RequestTooLargeError, match="1024"):
        client.embed(np.zeros((1025, 16, 16), np.uint8), batch_size=2000)


def test_threads_share_a_client(client: Client, pixels: Pixels) -> None:
    results: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda i=index: results.update({i: client.posterior(pixels[i]).mean}))  # type: ignore[misc]
        for index in range(7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.stack([results[i] for i in range(7)]), client.embed(pixels), atol=1e-5)
