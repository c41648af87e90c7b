"""Everything that can be set about a service, with its default. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from isolatent_export.inputs import Limits
from isolatent_export.runtime import Device

_DECODING = Limits()


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestLimits(_Closed):
    """Largest and slowest requests accepted; each limit is checked before what it bounds is decoded."""

    request_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of one request body, of any encoding."""
    item_bytes: int = Field(default=_DECODING.item_bytes, ge=1)
    """Bytes of one file in it."""
    pixels: int = Field(default=_DECODING.pixels, ge=1)
    """Width times height that an image file may announce."""
    points: int = Field(default=_DECODING.points, ge=1)
    """Points, or vertices, that a point cloud may announce or hold."""
    items: int = Field(default=_DECODING.items, ge=1)
    """Inputs of one request."""
    parse_seconds: float = Field(default=5.0, gt=0)
    """Time for one file in a parser process."""
    parse_megabytes: int = Field(default=192, ge=16)
    """Memory, in MiB, that one file may take there."""
    deadline_seconds: float = Field(default=30.0, gt=0)
    """Time for decoding and inference once the body has arrived."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Time for the body to arrive."""

    @property
    def inputs(self) -> Limits:
        """The part of the limits that decoding enforces."""
        return Limits(item_bytes=self.item_bytes, pixels=self.pixels, points=self.points, items=self.items)


class Settings(_Closed):
    """One service: which bundles it serves, where, and on what."""

    bundles: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free port."""
    device: Device = "auto"
    threads: int = Field(default=0, ge=0)
    """Cores one inference may use; 0: as many as this process may."""
    parsers: int = Field(default=0, ge=0)
    """Processes that parse untrusted files at a time; 0: as many as this process may use cores."""
    queue_items: int = Field(default=4096, ge=1)
    """Inputs that one model accepts before their turn has come; more are answered with 429."""
    queue_bytes: int = Field(default=256 * 2**20, ge=1)
    """Memory, once decoded, of these inputs."""
    limits: RequestLimits = RequestLimits()
