"""Everything that can be set about a service, with its default. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from isolatent_export.inputs import Limits
from isolatent_export.runtime import Device
from isolatent_serve.logs import LogFormat, LogLevel

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
    decoded_bytes: int = Field(default=_DECODING.decoded_bytes, ge=1)
    """Memory of one request's inputs once decoded, and as much again of the numbers in its answer."""
    parse_seconds: float = Field(default=5.0, gt=0)
    """Time for one file in a parser process."""
    parse_megabytes: int = Field(default=192, ge=16)
    """Memory, in MiB, that one file may take there."""
    deadline_seconds: float = Field(default=30.0, gt=0)
    """Time for decoding and inference once the body has arrived."""
    head_seconds: float = Field(default=10.0, gt=0)
    """Time for the head of a request to arrive, the first one's from when the connection begins."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Time for the body to arrive."""
    answer_seconds: float = Field(default=30.0, gt=0)
    """Time for the client to take the answer, plus a second for each 256 KiB of it."""

    @property
    def inputs(self) -> Limits:
        """The part of the limits that decoding enforces."""
        return Limits(
            item_bytes=self.item_bytes,
            pixels=self.pixels,
            points=self.points,
            items=self.items,
            decoded_bytes=self.decoded_bytes,
        )


class JobSettings(_Closed):
    """Batch jobs: where they live, and how much of the machine and of the disk they may take."""

    directory: Path
    """Uploaded files, jobs and their results; on a local disk."""
    inputs: tuple[Path, ...] = ()
    """Directories below which inputs may lie that a job names by their path; none: uploaded files only."""
    processes: int = Field(default=0, ge=0)
    """Processes of the one job that runs, at the lowest priority; 0: half of the cores this process may use."""
    device: Device = "cpu"
    """Where jobs run: on a GPU they would have no lower priority than requests."""
    shard_items: int | None = Field(default=None, ge=1, le=1_000_000)
    """Inputs per part of the results: what an interruption costs at most. None: up to 1,024, fewer for small jobs."""
    upload_bytes: int = Field(default=4 * 2**30, ge=1)
    """Bytes of one uploaded file."""
    stored_bytes: int = Field(default=64 * 2**30, ge=1)
    """Bytes of all uploaded files together."""
    free_bytes: int = Field(default=2**30, ge=0)
    """Bytes that uploads leave free on the disk."""
    upload_seconds: float = Field(default=3600.0, gt=0)
    """Time for one upload, which besides must not stand still for longer than a body may take."""
    uploads: int = Field(default=8, ge=1)
    """Uploads at a time in one process."""
    pending: int = Field(default=100, ge=1)
    """Jobs of one key that are not over."""
    retention_days: float = Field(default=7.0, gt=0)
    """Time from the end of a job, or the upload of a file, until it is deleted."""


class Settings(_Closed):
    """One service: which bundles it serves, where, and on what."""

    bundles: tuple[Path, ...] = ()
    models: Path | None = None
    """Directory of bundles as NAME/VERSION; the newest version of each name is served."""
    poll_seconds: float = Field(default=5.0, ge=0)
    """Time between two looks at that directory; 0: only on SIGHUP."""
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
    body_bytes: int = Field(default=2**30, ge=1)
    """Memory of all request bodies in hand together; what would take more is answered with 429."""
    queue_bytes: int = Field(default=256 * 2**20, ge=1)
    """Memory, once decoded, of these inputs."""
    batch_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """Time that a request which finds its model idle waits for others to run with it."""
    stuck_seconds: float = Field(default=60.0, gt=0)
    """Time for one batch in one graph; after it, the thread that runs the model counts as lost and is replaced."""
    cuda_graphs: bool = False
    """Whether each batch size is recorded as a CUDA graph and replayed."""
    gpu_megabytes: int = Field(default=0, ge=0)
    """Memory, in MiB, that each of a model's two graphs may take of the GPU; 0: all that is free."""
    keys: Path | None = None
    """File of bearer keys, one of which every request but the probes must have; None: no keys are asked for."""
    log_format: LogFormat | None = None
    """How the command logs on stderr; None: text on a terminal, else JSON."""
    log_level: LogLevel = "info"
    workers: int = Field(default=1, ge=1)
    """Processes that serve. With more than one, `threads` and `parsers` of 0 mean each one's part of the cores; what
    is bounded per model or connection is bounded in each."""
    max_connections: int = Field(default=1000, ge=1)
    """Connections to one process; when there are more, idle ones are closed, or else work is refused with 503."""
    keep_alive_seconds: float = Field(default=65.0, gt=0)
    """Time after which an idle connection is closed. A proxy should close its own first; most do after 60 seconds."""
    drain_seconds: float | None = Field(default=None, gt=0)
    """Time for accepted requests at the end; None: as long as a body and a deadline may take."""
    limits: RequestLimits = RequestLimits()
    jobs: JobSettings | None = None
    """Batch jobs; None: the service does none."""

    @property
    def patience(self) -> float:
        """Seconds after which a service that drains ends, whatever it has still to do."""
        return self.drain_seconds or self.limits.body_seconds + self.limits.deadline_seconds
