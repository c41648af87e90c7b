"""isolatent serve BUNDLE...: open and check bundles, bind, then verify on the real device while already answering."""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from isolatent.cli import CommandError
from isolatent_export import BundleError
from isolatent_serve import listening, server
from isolatent_serve.keys import KeysError
from isolatent_serve.logs import LogFormat, LogLevel
from isolatent_serve.settings import JobSettings, RequestLimits, Settings
from isolatent_serve.supervisor import Supervisor

_DEFAULTS = Settings()
_LIMITS = _DEFAULTS.limits
_JOBS = JobSettings(directory=Path())
_JOB_PACKAGES = ("pyarrow", "fsspec")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="directory made by isolatent export")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="directory of bundles as NAME/VERSION: the newest good version of each is served, whenever it comes",
    )
    parser.add_argument(
        "--poll-seconds",
        default=_DEFAULTS.poll_seconds,
        type=_interval,
        metavar="SECONDS",
        help="between two looks at DIR; 0: only on SIGHUP (default: %(default)g)",
    )
    parser.add_argument("--host", default=_DEFAULTS.host, help="address to bind (default: %(default)s)")
    parser.add_argument("--port", default=_DEFAULTS.port, type=_port, help="0 takes a free port (default: %(default)s)")
    parser.add_argument("--device", default=_DEFAULTS.device, choices=("auto", "cpu", "cuda"), help="where models run")
    parser.add_argument(
        "--workers",
        default=_DEFAULTS.workers,
        type=_positive,
        metavar="N",
        help="processes that serve, each with every model (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        default=_DEFAULTS.threads,
        type=_count,
        metavar="N",
        help="cores per inference (default: all, or each worker's part of them)",
    )
    parser.add_argument(
        "--max-queue",
        default=_DEFAULTS.queue_items,
        type=_positive,
        metavar="N",
        help="inputs that wait for one model; more are answered with 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-delay",
        default=_DEFAULTS.batch_delay_ms,
        type=_milliseconds,
        metavar="MS",
        help="that a request which finds its model idle waits for others to run with it (default: %(default)g)",
    )
    parser.add_argument(
        "--stuck-timeout",
        default=_DEFAULTS.stuck_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for one batch in one graph, after which the model is loaded again (default: %(default)g)",
    )
    parser.add_argument("--cuda-graphs", action="store_true", help="record each batch size once, and replay it")
    parser.add_argument(
        "--gpu-memory",
        default=_DEFAULTS.gpu_megabytes,
        type=_count,
        metavar="MIB",
        help="of the GPU for each of a model's two graphs; 0: all that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--keys",
        default=os.environ.get("ISOLATENT_KEYS_FILE") or None,
        type=Path,
        metavar="FILE",
        help="bearer keys, one of which every request must have; see isolatent keys (default: ISOLATENT_KEYS_FILE)",
    )
    parser.add_argument("--log-format", choices=get_args(LogFormat), help="default: text on a terminal, else json")
    parser.add_argument("--log-level", default=_DEFAULTS.log_level, choices=get_args(LogLevel))
    parser.add_argument(
        "--max-connections",
        default=_DEFAULTS.max_connections,
        type=_positive,
        metavar="N",
        help="per worker; then idle ones are closed, or requests refused with 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-alive",
        default=_DEFAULTS.keep_alive_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="after which an idle connection is closed (default: %(default)g)",
    )
    parser.add_argument(
        "--drain",
        type=_seconds,
        metavar="SECONDS",
        help="for accepted requests after SIGTERM or SIGINT (default: as long as one may take)",
    )
    _add_jobs(parser.add_argument_group("batch jobs"))
    limits = parser.add_argument_group("limits per request")
    limits.add_argument("--max-request-bytes", default=_LIMITS.request_bytes, type=_positive, metavar="N")
    limits.add_argument("--max-pixels", default=_LIMITS.pixels, type=_positive, metavar="N", help="per image")
    limits.add_argument("--max-points", default=_LIMITS.points, type=_positive, metavar="N", help="per point cloud")
    limits.add_argument("--max-items", default=_LIMITS.items, type=_positive, metavar="N")
    limits.add_argument(
        "--max-decoded-bytes",
        default=_LIMITS.decoded_bytes,
        type=_positive,
        metavar="N",
        help="of a request's inputs once decoded, and of its answer's numbers (default: %(default)s)",
    )
    limits.add_argument(
        "--head-timeout",
        default=_LIMITS.head_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for the head of a request to arrive (default: %(default)g)",
    )
    limits.add_argument(
        "--body-timeout",
        default=_LIMITS.body_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for its body to arrive (default: %(default)g)",
    )
    limits.add_argument("--deadline", default=_LIMITS.deadline_seconds, type=_seconds, metavar="SECONDS")
    limits.add_argument(
        "--parse-timeout",
        default=_LIMITS.parse_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for one untrusted file, in a process of its own (default: %(default)g)",
    )
    limits.add_argument(
        "--parse-memory",
        default=_LIMITS.parse_megabytes,
        type=_megabytes,
        metavar="MIB",
        help="for one untrusted file, in a process of its own (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print where it listens as one JSON object")


def _add_jobs(jobs: argparse._ArgumentGroup) -> None:
    jobs.add_argument(
        "--jobs", type=Path, metavar="DIR", help="do batch jobs; uploads and results are kept in DIR, on a local disk"
    )
    jobs.add_argument(
        "--jobs-input",
        default=[],
        action="append",
        type=Path,
        metavar="DIR",
        help="jobs may name paths below DIR as their input; may be given again (default: uploaded files only)",
    )
    jobs.add_argument(
        "--job-processes",
        default=_JOBS.processes,
        type=_count,
        metavar="N",
        help="of the one job that runs, at the lowest priority (default: half of the cores)",
    )
    jobs.add_argument(
        "--job-retention",
        default=_JOBS.retention_days,
        type=_days,
        metavar="DAYS",
        help="after which uploads, and jobs that are over, are deleted (default: %(default)g)",
    )
    jobs.add_argument(
        "--max-upload-bytes", default=_JOBS.upload_bytes, type=_positive, metavar="N", help="(default: %(default)s)"
    )
    jobs.add_argument(
        "--max-stored-bytes",
        default=_JOBS.stored_bytes,
        type=_positive,
        metavar="N",
        help="of all uploads together (default: %(default)s)",
    )
    jobs.add_argument(
        "--upload-timeout",
        default=_JOBS.upload_seconds,
        type=_seconds,
        metavar="SECONDS",
        help="for one upload; --body-timeout is for a pause in it (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Raises CommandError for bundles or addresses that cannot be served."""
    if not args.bundles and not args.models:
        raise CommandError("nothing to serve; name a BUNDLE, or a directory of them with --models DIR")
    settings = _settings(args)
    server.start_logging(settings)
    _require_jobs(settings)
    try:
        bundles = server.open_bundles(settings.bundles)
        one = server.Server(settings, bundles) if settings.workers == 1 else None
        with listening.bind(settings) as listener:
            listening.announce(listener, as_json=args.json)
            if one:
                one.serve_on(listener)
            else:
                Supervisor(settings, listener).run()
    except (BundleError, KeysError) as error:
        raise CommandError(str(error)) from None
    return 0


def _require_jobs(settings: Settings) -> None:
    """Raise CommandError when the service is to do jobs, and cannot."""
    if settings.jobs is None:
        return
    missing = [name for name in _JOB_PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f'--jobs needs {", ".join(missing)}; run: pip install "isolatent[jobs,serve]"')
    from isolatent_serve.jobs.store import StoreError, open_store

    for root in settings.jobs.inputs:
        if not root.is_dir():
            raise CommandError(f"--jobs-input {root}: no such directory; make it, or leave it out")
        _require_apart(root.resolve(), settings.jobs.directory.resolve())
    try:
        open_store(settings.jobs).close()
    except StoreError as error:
        raise CommandError(str(error)) from None


def _require_apart(root: Path, directory: Path) -> None:
    """Raise CommandError when jobs could name the uploads and results of others by their path."""
    if root == directory or root in directory.parents or directory in root.parents:
        raise CommandError(
            f"--jobs-input {root} and --jobs {directory} lie in each other, and what others have uploaded could be "
            "named as an input; name directories beside each other"
        )


def _jobs(args: argparse.Namespace) -> JobSettings | None:
    """Raises CommandError for options of jobs without --jobs."""
    if args.jobs is None:
        if args.jobs_input:
            raise CommandError("--jobs-input is for batch jobs; give --jobs DIR, too")
        return None
    return JobSettings(
        directory=args.jobs.absolute(),
        inputs=tuple(root.absolute() for root in args.jobs_input),
        processes=args.job_processes,
        retention_days=args.job_retention,
        upload_bytes=args.max_upload_bytes,
        stored_bytes=args.max_stored_bytes,
        upload_seconds=args.upload_timeout,
    )


def _settings(args: argparse.Namespace) -> Settings:
    limits = RequestLimits(
        request_bytes=args.max_request_bytes,
        pixels=args.max_pixels,
        points=args.max_points,
        items=args.max_items,
        decoded_bytes=args.max_decoded_bytes,
        head_seconds=args.head_timeout,
        body_seconds=args.body_timeout,
        deadline_seconds=args.deadline,
        parse_seconds=args.parse_timeout,
        parse_megabytes=args.parse_memory,
    )
    return Settings(
        bundles=tuple(args.bundles),
        models=args.models,
        poll_seconds=args.poll_seconds,
        host=args.host,
        port=args.port,
        device=args.device,
        threads=args.threads,
        queue_items=args.max_queue,
        batch_delay_ms=args.batch_delay,
        stuck_seconds=args.stuck_timeout,
        cuda_graphs=args.cuda_graphs,
        gpu_megabytes=args.gpu_memory,
        keys=args.keys,
        log_format=args.log_format,
        log_level=args.log_level,
        workers=args.workers,
        max_connections=args.max_connections,
        keep_alive_seconds=args.keep_alive,
        drain_seconds=args.drain,
        limits=limits,
        jobs=_jobs(args),
    )


def _port(text: str) -> int:
    number = _count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; give 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _megabytes(text: str) -> int:
    number = int(text)
    if number < 16:
        raise argparse.ArgumentTypeError(f"{number} MiB are too few to read anything; give 16 or more")
    return number


def _milliseconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000 milliseconds")
    return number


def _interval(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


def _days(text: str) -> float:
    number = float(text)
    if not 0 < number < 36525:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 36525 days")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return number
