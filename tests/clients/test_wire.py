"""Requests as they leave, without a service."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest

from isolatent import _latents, _wire
from isolatent._inputs import Item, to_item


def items(*values: object) -> list[Item]:
    return [to_item(value, index) for index, value in enumerate(values)]


def picture(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3)])
def test_arrays_of_one_shape_travel_as_one_array(shape: tuple[int, ...]) -> None:
    call = _wire.embeddings(items(picture(*shape), picture(*shape) + 1), None)
    assert call.headers == {"Content-Type": "application/x-npy"}
    assert call.content is not None
    assert np.array_equal(np.load(io.BytesIO(call.content)), [picture(*shape), picture(*shape) + 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clouds_of_one_size_travel_as_one_array_in_their_own_precision(dtype: type) -> None:
    clouds = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(dtype)
    call = _wire.embeddings(items(*clouds), None)
    assert call.content is not None
    sent = np.load(io.BytesIO(call.content))
    assert (sent.dtype, sent.tolist()) == (dtype, clouds.tolist())


def test_arrays_that_differ_in_size_or_dtype_travel_as_a_form() -> None:
    small, large, precise = np.zeros((4, 3), np.float32), np.zeros((5, 3), np.float32), np.zeros((4, 3))
    for pair in ((small, large), (small, precise), (small, picture(4, 3))):
        call = _wire.posteriors(items(*pair), None)
        assert [np.load(io.BytesIO(file)).dtype for _, (_, file, _) in call.parts] == [each.dtype for each in pair]


def test_an_array_in_any_memory_order_is_sent_in_c_order() -> None:
    odd = np.asfortranarray(picture(2, 6))[:, ::2]
    many, one = _wire.posteriors(items(odd, odd), None), _wire.posteriors(items(odd), None)
    for content, expected in ((many.content, [odd, odd]), (one.parts[0][1][1], odd)):
        assert content is not None
        assert b"'fortran_order': False" in content
        assert np.array_equal(np.load(io.BytesIO(content)), expected)


def test_mixed_inputs_travel_as_a_form_with_a_part_each() -> None:
    call = _wire.posteriors(items(b"png", picture(2, 3), picture(3, 2)), None)
    kinds = [(name, file, kind) for name, (file, _, kind) in call.parts]
    assert kinds == [
        ("input", "input 0", "application/octet-stream"),
        ("input", "1.npy", "application/x-npy"),
        ("input", "2.npy", "application/x-npy"),
    ]
    assert np.array_equal(np.load(io.BytesIO(call.parts[1][1][1])), picture(2, 3))


@pytest.mark.parametrize(
    ("name", "sent"), [("/home/me/a.png", "a.png"), ("C:\\me\\a.png", "a.png"), ("\udcff.png", "?.png")]
)
def test_only_the_last_part_of_a_path_is_sent(name: str, sent: str) -> None:
    assert _wire.posteriors([Item(0, name, b"png")], None).parts[0][1][0] == sent


def test_the_model_goes_into_the_query_and_is_left_out_without() -> None:
    assert _wire.posteriors(items(b"png"), "tiny").params == {"model": "tiny"}
    assert _wire.posteriors(items(b"png"), None).params == {}


def test_a_model_name_cannot_leave_its_place_in_the_path() -> None:
    assert _wire.model("../a?b/c").path == "/v1/models/..%2Fa%3Fb%2Fc"


def test_batches_close_at_their_size_and_keep_the_order() -> None:
    groups = list(_wire.batches(items(*[b"x"] * 7), 3))
    assert [[item.index for item in group] for group in groups] == [[0, 1, 2], [3, 4, 5], [6]]


def test_batches_close_early_where_inputs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "BATCH_BYTES", 10)
    sizes = [len(group) for group in _wire.batches(items(b"x" * 4, b"x" * 4, b"x" * 4, b"x" * 40, b"x"), 64)]
    assert sizes == [2, 1, 1, 1]


def test_batches_read_no_further_than_the_one_in_hand() -> None:
    read = []

    def source() -> Iterator[Item]:
        for number in range(100):
            read.append(number)
            yield Item(number, "x", b"x")

    next(_wire.batches(source(), 4))
    assert read == [0, 1, 2, 3]


def test_numbers_come_as_safetensors_whatever_is_asked() -> None:
    pictures, latents = items(np.zeros((4, 4), np.uint8)), list(_latents.to_items(np.zeros(3)))
    asked = [ask(pictures, None) for ask in (_wire.posteriors, _wire.embeddings, _wire.reconstructions)]
    asked += [_wire.decodings(latents, None), _wire.consistencies(pictures, None, 5)]
    assert {call.accept for call in asked} == {"application/x-safetensors"}
