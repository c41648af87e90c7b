"""Files that have crashed or misled other decoders."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest


@pytest.mark.data
def test_no_hostile_image_harms_the_service(client: httpx2.Client, data_dir: Path, png: bytes) -> None:
    files = sorted((data_dir / "hostile" / "images").iterdir())
    assert files
    for file in files:
        for model in ("tiny", "tiny-colour"):
            headers = {"Content-Type": "application/octet-stream"}
            params = {"model": model, "on_error": "request"}
            response = client.post("/v1/posteriors", params=params, content=file.read_bytes(), headers=headers)
            assert response.status_code in (200, 400, 413, 422), f"{file.name}: {response.text}"
    assert client.post("/v1/posteriors?model=tiny", files={"input": png}).status_code == 200


@pytest.mark.data
def test_hostile_images_in_one_request_keep_their_places(client: httpx2.Client, data_dir: Path) -> None:
    files = sorted((data_dir / "hostile" / "images").iterdir())
    parts = [("input", (file.name, file.read_bytes())) for file in files]
    response = client.post("/v1/posteriors?model=tiny&on_error=item", files=parts)
    assert response.status_code == 200, response.text
    assert [item["index"] for item in response.json()["data"]] == list(range(len(files)))
