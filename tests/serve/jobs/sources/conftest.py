"""A folder of real PNG files, and what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources_support import png

NAMES = ("0.png", "1.png", "a/2.png", "a/b/3.PNG", "z.png")


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """PNG files by name, all different, in the order of their names."""
    return {name: png(shade) for shade, name in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path: Path, pictures: dict[str, bytes]) -> Path:
    """The pictures as files in a folder, with files that are no inputs between them."""
    root = tmp_path / "pictures"
    for name, content in {**pictures, "notes.md": b"#", ".thumbs/0.png": b"-", "a/.hidden.png": b"-"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
