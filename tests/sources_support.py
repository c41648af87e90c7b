"""Helpers that the tests of input sources share."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from isolatent_export.inputs import InputError
from isolatent_serve.jobs.sources import Input, Locator, SourceError, SourceLimits, list_inputs, open_items


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


def listed(*inputs: object, **options: Any) -> list[Input]:
    return list(list_inputs([str(each) for each in inputs], **options))


def ids(*inputs: object, **options: Any) -> list[str]:
    return [each.id for each in listed(*inputs, **options)]


def contents(items: list[Input], **options: Any) -> dict[str, bytes | InputError]:
    """Id -> content, read in the way of another process: from locators that were JSON in between."""
    locators = [Locator(*json.loads(json.dumps(each.locator))) for each in items]
    return dict(zip((each.id for each in items), open_items(locators, **options), strict=True))


def read(
    *inputs: object, unpack: Path | None = None, limits: SourceLimits = SourceLimits(), **options: Any
) -> dict[str, bytes | InputError]:
    return contents(listed(*inputs, unpack=unpack, limits=limits, **options), limits=limits, unpacked=unpack)


def refusal(*inputs: object, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        listed(*inputs, **options)
    assert "\n" not in caught.value.detail
    assert ";" in caught.value.detail  # what is wrong; what to do
    return caught.value.detail


def error(found: bytes | InputError) -> InputError:
    assert isinstance(found, InputError)
    return found
