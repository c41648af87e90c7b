"""Real files in many dialects, over HTTP: the service makes of each what decode_item makes of it here."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from isolatent_export import Bundle
from isolatent_export.inputs import Limits, decode_item

BYTES = {"Content-Type": "application/octet-stream"}
NPY = {"Content-Type": "application/x-npy"}


def listed(data_dir: Path) -> list[Path]:
    with (data_dir / "formats" / "LISTING.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    # diamond.bin is 18 numbers without a header: nothing in it says what they are.
    return [
        data_dir / row["file"] for row in rows if row["expected"] == "must load" and "diamond.bin" not in row["file"]
    ]


@pytest.mark.data
@pytest.mark.parametrize("model", ["tiny-cloud", "tiny-colour"])
def test_every_file_is_read_as_it_is_here(
    client: httpx2.Client,
    data_dir: Path,
    cloud_bundle_path: Path,
    colour_bundle_path: Path,
    npy: Callable[[Any], bytes],
    model: str,
) -> None:
    clouds = model == "tiny-cloud"
    spec = Bundle.open(cloud_bundle_path if clouds else colour_bundle_path).manifest.input
    files = [file for file in listed(data_dir) if (file.parent.name == "images") != clouds]
    assert len(files) > 25
    for file in files:
        data = file.read_bytes()
        sent = client.post(f"/v1/embeddings?model={model}", content=data, headers=BYTES)
        assert sent.status_code == 200, f"{file.name}: {sent.text}"
        decoded = npy(decode_item(data, spec, Limits()))
        again = client.post(f"/v1/embeddings?model={model}", content=decoded, headers=NPY)
        # Points that were normalised once are not quite the same when they are normalised again.
        tolerance = 1e-5 if clouds else 0
        ours, theirs = (response.json()["data"][0]["embedding"] for response in (sent, again))
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0, err_msg=file.name)
