"""What a batch job is to do: everything that decides about its results, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from isolatent_export import Bundle, BundleError
from isolatent_export.bundle import MANIFEST, file_digest
from isolatent_export.inputs import Limits
from isolatent_export.runtime import Device
from isolatent_serve.jobs.sources import SourceLimits
from isolatent_serve.options import MOST_SAMPLES, Options

OutputName = Literal["posterior", "embedding", "reconstruction_error", "consistency"]
Format = Literal["parquet", "jsonl", "npy"]

OUTPUTS: tuple[OutputName, ...] = ("posterior", "embedding", "reconstruction_error", "consistency")
"""What can be asked of a job, in the order of its columns; the posterior is always there."""

_DECODING = Limits()


class JobError(Exception):
    """A job that cannot be done, or not like this. The message is one line that names the remedy."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobLimits(_Closed):
    """Largest and slowest inputs accepted. What exceeds a limit of one file is a failed item, not a failed job."""

    item_bytes: int = Field(default=_DECODING.item_bytes, ge=1)
    """Bytes of one file."""
    pixels: int = Field(default=_DECODING.pixels, ge=1)
    """Width times height that an image file may announce."""
    points: int = Field(default=_DECODING.points, ge=1)
    """Points, or vertices, that a point cloud may announce or hold."""
    decoded_bytes: int = Field(default=_DECODING.decoded_bytes, ge=1)
    """Memory of one batch once decoded: batches of large inputs have fewer items."""
    parse_seconds: float = Field(default=5.0, gt=0)
    """Processor time for decoding one file."""
    parse_megabytes: int = Field(default=192, ge=16)
    """Memory, in MiB, that decoding one file of a kind that is not trusted may take."""

    archive_items: int = Field(default=SourceLimits.archive_items, ge=1)
    """Members of one archive."""
    archive_bytes: int = Field(default=SourceLimits.archive_bytes, ge=1)
    """Of all members of one archive together, unpacked."""
    archive_ratio: int = Field(default=SourceLimits.archive_ratio, ge=1)
    """Unpacked bytes per packed byte of an archive as a whole."""
    unpacked_bytes: int = Field(default=SourceLimits.unpacked_bytes, ge=1)
    """Of a compressed tar archive, which has to be unpacked to the disk."""
    free_bytes: int = Field(default=SourceLimits.free_bytes, ge=0)
    """Left free on the disk that it is unpacked to."""
    roots: tuple[str, ...] | None = None
    """Folders below which every local file has to lie; then no URI is read. None: anywhere, URIs too."""

    @property
    def inputs(self) -> Limits:
        """The part of the limits that decoding enforces."""
        return Limits(
            item_bytes=self.item_bytes, pixels=self.pixels, points=self.points, decoded_bytes=self.decoded_bytes
        )

    @property
    def sources(self) -> SourceLimits:
        """The part of the limits that listing and reading enforce."""
        return SourceLimits(
            item_bytes=self.item_bytes,
            archive_items=self.archive_items,
            archive_bytes=self.archive_bytes,
            archive_ratio=self.archive_ratio,
            unpacked_bytes=self.unpacked_bytes,
            free_bytes=self.free_bytes,
            roots=self.roots,
        )


def _absolute(place: str) -> str:
    """`place` so that it means the same from every working directory; URIs stay as they are."""
    return place if "://" in place else os.path.abspath(place)  # noqa: PTH100 - patterns are no paths


class JobSpec(_Closed):
    """One job. Two runs with equal specs over equal inputs write the same bytes."""

    model: Annotated[Path, AfterValidator(Path.absolute)]
    """Folder of the bundle."""
    inputs: tuple[Annotated[str, AfterValidator(_absolute)], ...] = Field(min_length=1)
    """Files, folders, patterns, archives, Parquet files, or URIs of these."""
    outputs: tuple[OutputName, ...] = ("posterior",)
    format: Format = "parquet"
    column: str | None = None
    """Column of a Parquet input that holds the files or their paths; None: the only one that can."""
    samples: int = Field(default=Options.samples, ge=1, le=MOST_SAMPLES)
    """Transformed copies per item behind `consistency`."""
    shard_items: int | None = Field(default=None, ge=1, le=1_000_000)
    """Inputs per part: what a crash costs at most, and what is written at a time. None: as plan.py finds it good."""
    batch_items: int = Field(default=64, ge=1, le=4096)
    """Inputs that are encoded together."""
    device: Device = "auto"
    limits: JobLimits = JobLimits()

    @field_validator("outputs", mode="after")
    @classmethod
    def _in_order(cls, outputs: tuple[OutputName, ...]) -> tuple[OutputName, ...]:
        """Each name once, in the order of OUTPUTS, with the posterior."""
        return tuple(name for name in OUTPUTS if name == "posterior" or name in outputs)

    def bundle(self) -> Bundle:
        """The model. Raises JobError when it is not there or not readable."""
        try:
            return Bundle.open(self.model)
        except BundleError as error:
            raise JobError(str(error)) from None

    def model_digest(self) -> str:
        """Hexadecimal sha256 of the bundle's manifest, which lists that of every other file. Raises JobError."""
        return file_digest(self.bundle().path / MANIFEST)

    def settled(self) -> dict[str, Any]:
        """What must stay as it is for a job to be resumed, by name: where the bundle lies may change, its content not,
        and how much room is left on the disk.

        Raises JobError when the bundle is not there.
        """
        facts = self.model_dump(mode="json", exclude={"model": True, "limits": {"free_bytes"}})
        return facts | {"model": self.model_digest()}


def digest_of(facts: Any) -> str:
    """Hexadecimal sha256 of JSON-ready facts, whatever the order of their members."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
