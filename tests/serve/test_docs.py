"""The Python examples of docs/http-api.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "http-api.md"


def test_the_python_examples_run(
    client: httpx2.Client, png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digit.png").write_bytes(png)
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text().replace("localhost:8000", client.base_url.netloc.decode())
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(DOCS), "exec"), names)
    headers = {"Content-Type": "image/png"}
    (ours,) = client.post("/v1/embeddings?model=tiny", content=png, headers=headers).json()["data"]
    assert np.array_equal(np.float32(names["embedding"]), np.float32(ours["embedding"]))
    assert np.array_equal(names["mean"][0], np.float32(ours["embedding"]))
    assert names["reconstruction"].shape == (2, 16, 16, 1)
