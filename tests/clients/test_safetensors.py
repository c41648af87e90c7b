"""The strict reader, against the safetensors package and against broken files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from isolatent._safetensors import parse

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def packed(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_reads_what_the_safetensors_package_writes() -> None:
    tensors = {"mean": np.arange(6, dtype=np.float32).reshape(2, 3), "kl": np.array([1.5, np.nan], np.float32)}
    read, metadata = parse(save(tensors, {"model": "tiny"}))
    assert metadata == {"model": "tiny"}
    assert {name: read[name].tobytes() for name in read} == {name: tensors[name].tobytes() for name in tensors}
    assert read["mean"].shape == (2, 3)


def test_metadata_may_be_missing() -> None:
    assert parse(packed({"a": ENTRY}, bytes(8)))[1] == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too few"),
        (b"\xff" * 8 + b"{}", "header claims"),
        ((10**7).to_bytes(8, "little") + bytes(10**7), "header claims"),
        (packed(b"{"), "not JSON"),
        (packed(b"\xff\xfe"), "not JSON"),
        (packed(b"[" * 100_000), "not JSON"),
        (packed([]), "no JSON object"),
        (packed({"__metadata__": {"a": 1}}), "no map of texts"),
        (packed({"a": 1}), "no data_offsets"),
        (packed({"a": ENTRY | {"data_offsets": [0, "8"]}}, bytes(8)), "no data_offsets"),
        (packed({"a": ENTRY | {"dtype": "F16"}}, bytes(8)), "expected F32"),
        (packed({"a": ENTRY | {"shape": [-2]}}, bytes(8)), "no shape"),
        (packed({"a": ENTRY | {"shape": [True, 2]}}, bytes(8)), "no shape"),
        (packed({"a": ENTRY | {"shape": [3]}}, bytes(12)), "claims bytes"),
        (packed({"a": ENTRY | {"shape": [2**62, 4]}}, bytes(8)), "claims bytes"),
        (packed({"a": ENTRY}, bytes(7)), "claims bytes"),
        (packed({"a": ENTRY}, bytes(9)), "belong to no tensor"),
        (packed({"a": ENTRY, "b": ENTRY}, bytes(8)), "claims bytes"),
        (packed({"a": ENTRY | {"data_offsets": [-8, 0]}}, bytes(8)), "claims bytes"),
        (packed({"a": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)), "claims bytes"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(data)


def test_no_cut_or_flipped_byte_does_worse_than_value_error() -> None:
    whole = save({"mean": np.ones((2, 3), np.float32)}, {"model": "tiny"})
    for place in range(len(whole)):
        for broken in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :]):
            try:
                parse(broken)
            except ValueError:
                continue
