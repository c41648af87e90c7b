"""Jobs over many files that a service does on its own: begin, list, show, wait for, cancel, and get their results.

isolatent jobs create images/ --outputs embedding
isolatent jobs create 'scans/*.ply' --remote --model shapes --wait
isolatent jobs list --state running
isolatent jobs wait JOB
isolatent jobs results JOB --out results/
isolatent jobs errors JOB

create takes a folder, an archive (zip, tar) or a Parquet file here, which is uploaded; the id of an uploaded file
(file-...); or, with --remote, a path or pattern on the service's machine. results prints a row per input, or with
--out brings the parts into a folder, going on where an earlier call ended.

Exit codes: 0 done; 1 failed, or waited for a job some of whose inputs failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import get_args

import numpy as np

from isolatent._client import Client
from isolatent._errors import JobTimeout
from isolatent._jobs import Job
from isolatent.cli import CommandError
from isolatent.cli._service import add_model_argument, add_service_arguments, numbers, print_json, service
from isolatent.types import JobFormat, JobOutput, JobRow, JobState

OUTPUTS: tuple[str, ...] = get_args(JobOutput)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `isolatent jobs` and its commands."""
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, title="commands")
    create = commands.add_parser("create", help="begin a job", description="Begin a job and print its id.")
    _add_create_arguments(create)
    every = [create, commands.add_parser("list", help="list jobs, newest first")]
    every[-1].add_argument("--state", choices=get_args(JobState), help="only those in this state")
    for name, text in (
        ("show", "all facts about a job"),
        ("wait", "wait until a job is over"),
        ("cancel", "end a job; finished parts stay"),
        ("results", "the results of a job, or its parts into a folder"),
        ("errors", "the inputs of a job that failed, and why"),
    ):
        every.append(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
        every[-1].add_argument("job", metavar="JOB", help="id of the job, job-...")
        if name == "wait":
            _add_wait_argument(every[-1])
        if name == "results":
            every[-1].add_argument("--out", metavar="DIR", help="bring the parts here; a call that broke off goes on")
            every[-1].add_argument("--partial", action="store_true", help="also of a job that did not succeed (yet)")
    for command in every:
        add_service_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Do what the command says. Exit code 1 when inputs of a job that was waited for failed."""
    with service(args) as client:
        code: int = globals()[f"_{args.command}"](client, args)
    return code


def add_outputs_argument(parser: argparse.ArgumentParser) -> None:
    """--outputs, names with commas or spaces between."""
    parser.add_argument(
        "--outputs",
        type=_outputs,
        default=(),
        metavar="A,B",
        help=f"what to compute besides the posterior: {', '.join(OUTPUTS[1:])}",
    )


def _add_create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="folder, archive or Parquet file here, or file-... (see above)")
    parser.add_argument("--remote", action="store_true", help="INPUT is a path or pattern on the service's machine")
    add_model_argument(parser)
    add_outputs_argument(parser)
    parser.add_argument("--format", choices=get_args(JobFormat), default="parquet", help="of the parts (parquet)")
    parser.add_argument("--samples", type=int, metavar="N", help="transformed copies per input, for consistency")
    parser.add_argument("--column", metavar="NAME", help="of a Parquet file: what holds the inputs or their paths")
    parser.add_argument("--metadata", action="append", type=_pair, metavar="NAME=TEXT", help="kept with the job")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key again is the same job, not another one")
    parser.add_argument("--wait", action="store_true", help="wait until it is over")
    _add_wait_argument(parser)


def _add_wait_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait-seconds", type=float, metavar="S", help="how long to wait at most (default: no end)")


def _create(client: Client, args: argparse.Namespace) -> int:
    job = client.jobs.create(
        {"path": args.input} if args.remote else args.input,
        args.model,
        outputs=args.outputs,
        format=args.format,
        samples=args.samples,
        column=args.column,
        metadata=dict(args.metadata or ()),
        idempotency_key=args.idempotency_key,
        progress=sys.stderr.isatty(),
    )
    if args.wait:
        if not args.json:
            print(job.id, flush=True)
        return _waited(job, args)
    _print(job, args)
    return 0


def _list(client: Client, args: argparse.Namespace) -> int:
    jobs = client.jobs.list(state=args.state)
    if args.json:
        for job in jobs:
            print_json(dict(job.facts))
        return 0
    rows = [("JOB", "STATE", "MODEL", "DONE", "FAILED", "CREATED"), *map(_row, jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _show(client: Client, args: argparse.Namespace) -> int:
    job = client.jobs.get(args.job)
    if args.json:
        print_json(dict(job.facts))
        return 0
    counts = job.counts
    facts = {
        "job": job.id,
        "state": job.state + (f": {job.error}" if job.error else ""),
        "model": f"{job.model} {job.version}",
        "input": " ".join(job.input.values()),
        "outputs": ", ".join(job.outputs),
        "inputs": f"{_done(job)}, {counts.failed} failed",
        "created": _time(job.created_at),
        "started": _time(job.started_at),
        "finished": _time(job.finished_at),
        "expires": _time(job.expires_at),
    } | dict(job.metadata)
    for name, text in facts.items():
        print(f"{name:10} {text}")
    return 0


def _wait(client: Client, args: argparse.Namespace) -> int:
    return _waited(client.jobs.get(args.job), args)


def _cancel(client: Client, args: argparse.Namespace) -> int:
    _print(client.jobs.get(args.job).cancel(), args)
    return 0


def _results(client: Client, args: argparse.Namespace) -> int:
    job = client.jobs.get(args.job)
    if args.out is None:
        _print_rows(job.results(partial=args.partial), as_json=args.json)
        return 0
    try:
        paths = job.download(args.out, partial=args.partial, progress=sys.stderr.isatty())
    except OSError as error:
        raise CommandError(f"--out {args.out}: {error.strerror}: {error.filename}; choose another folder") from None
    if args.json:
        print_json({"job": job.id, "out": args.out, "parts": [path.name for path in paths]})
    else:
        print(f"{args.out}: {len(paths)} parts of {job.id}")
    return 0


def _errors(client: Client, args: argparse.Namespace) -> int:
    for error in client.jobs.get(args.job).errors():
        if args.json:
            print_json(vars(error))
        else:
            print(error)
    return 0


def _waited(job: Job, args: argparse.Namespace) -> int:
    try:
        job.wait(args.wait_seconds, progress=sys.stderr.isatty())
    except JobTimeout as error:
        raise CommandError(f"{error.message.partition(';')[0]}; it goes on: isolatent jobs wait {job.id}") from None
    _print(job, args)
    if not job.counts.failed:
        return 0
    print(f"isolatent: {job.counts.failed} inputs failed: isolatent jobs errors {job.id}", file=sys.stderr)
    return 1


def _print(job: Job, args: argparse.Namespace) -> None:
    if args.json:
        print_json(dict(job.facts))
    else:
        print(f"{job.id} {job.state}, {_done(job)} inputs done, {job.counts.failed} failed")


def _print_rows(rows: Iterable[JobRow], *, as_json: bool) -> None:
    if not as_json:
        print(f"{'|MEAN|':>9}  {'KL (NATS)':>9}  ID")
    for row in rows:
        posterior = row.posterior
        if as_json:
            print_json(_facts(row))
        else:
            print(f"{np.linalg.norm(posterior.mean):9.4f}  {posterior.kl:9.4f}  {row.id}")


def _facts(row: JobRow) -> dict[str, object]:
    """The row as a part in JSON lines has it."""
    posterior = row.posterior
    facts: dict[str, object] = {
        "id": row.id,
        "mean": numbers(posterior.mean),
        "variance": numbers(posterior.variance),
        "kl": float(str(np.float32(posterior.kl))),
    }
    if row.embedding is not None:
        facts["embedding"] = numbers(row.embedding)
    if row.reconstruction_error is not None:
        facts["reconstruction_error"] = float(str(np.float32(row.reconstruction_error)))
    if row.consistency is not None:
        facts["consistency_kl"], facts["consistency_normalized"] = numbers(row.consistency)
    return facts


def _row(job: Job) -> tuple[str, ...]:
    return job.id, job.state, f"{job.model} {job.version}", _done(job), str(job.counts.failed), _time(job.created_at)


def _done(job: Job) -> str:
    counts = job.counts
    return f"{counts.succeeded + counts.failed} of {'?' if counts.total is None else counts.total}"


def _time(time: datetime | None) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _outputs(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.replace(",", " ").split())
    for name in names:
        if name not in OUTPUTS:
            raise argparse.ArgumentTypeError(f"no output {name!r}; there are {', '.join(OUTPUTS)}")
    return names


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TEXT")
    return name, value
