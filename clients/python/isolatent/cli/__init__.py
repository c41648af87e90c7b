"""The `isolatent` command: a table of commands, each in a module that is imported only when it runs.

A command module has `add_arguments(parser)` and `run(args) -> int`, and raises CommandError for what the user can fix.

Exit codes: 0 done, 1 failed with one line on stderr that names the fix, 2 wrong usage, 130 interrupted. `isolatent
embed` tells more: 1 some inputs failed, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from isolatent import __version__

__all__ = ["COMMANDS", "Command", "CommandError", "main"]


class CommandError(Exception):
    """What a command cannot do, in one line that names the fix. Printed to stderr; the command exits with `code`."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Command:
    """One line of the table: the module to import, the extra that brings its packages, and what --help says."""

    module: str
    extra: str | None
    help: str


COMMANDS = {
    "quickstart": Command("isolatent_train.commands.quickstart", "all", "train small, export, serve and query"),
    "train": Command("isolatent_train.commands.train", "train", "train a model from a recipe"),
    "evaluate": Command("isolatent_train.commands.evaluate", "train", "measure a run or a bundle"),
    "export": Command("isolatent_train.commands.export", "train", "turn a run into a verified bundle"),
    "verify": Command("isolatent_export.commands.verify", "export", "check a bundle's hashes and golden outputs"),
    "inspect": Command("isolatent_export.commands.inspect", "export", "what a bundle is, expects and measured"),
    "compare": Command("isolatent_export.commands.compare", "export", "how far apart two bundles' posteriors are"),
    "push": Command("isolatent_export.commands.push", "export", "share a bundle as a file or on the Hugging Face hub"),
    "pull": Command("isolatent_export.commands.pull", "export", "get a bundle that somebody shares, verified"),
    "torchserve": Command("isolatent_export.commands.torchserve", "export", "make a folder that TorchServe serves"),
    "serve": Command("isolatent_serve.commands.serve", "serve", "serve bundles over HTTP"),
    "keys": Command("isolatent_serve.commands.keys", "serve", "make keys for a service"),
    "doctor": Command("isolatent.cli.doctor", None, "check packages, devices and libraries of this machine"),
    "models": Command("isolatent.cli.models", None, "list the models of a service"),
    "posterior": Command("isolatent.cli.posterior", None, "posterior means and variances of images or point clouds"),
    "embed": Command("isolatent.cli.embed", None, "posteriors or embeddings of any number of inputs, as files"),
    "jobs": Command("isolatent.cli.jobs", None, "jobs over many files that a service does on its own"),
    "reconstruct": Command("isolatent.cli.reconstruct", None, "what the model keeps of an image or point cloud"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Wrong usage raises SystemExit(2), as argparse does."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"isolatent: error: {_one_line(error)}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("isolatent: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        parser = _parser()
        parser.parse_args(arguments)  # --help, --version and mistakes end here
        parser.print_help(sys.stderr)
        return 2
    name, command = arguments[0], COMMANDS[arguments[0]]
    try:
        module = importlib.import_module(command.module)
        args = _parser(name, module).parse_args(arguments)
        code: int = module.run(args)
        return code
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "isolatent").startswith("isolatent"):
            raise
        raise CommandError(
            f"`isolatent {name}` needs the extra {command.extra!r} ({error.name} is not installed): "
            f'pip install "isolatent[{command.extra}]"'
        ) from None


def _parser(name: str | None = None, module: ModuleType | None = None) -> argparse.ArgumentParser:
    """The whole command's parser, with the arguments of the one command whose `module` is there."""
    parser = argparse.ArgumentParser(
        prog="isolatent",
        description="Embeddings that stay put under transformations: train, export, serve and query.",
        epilog="`isolatent COMMAND --help` says more about one command.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"isolatent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for each, command in COMMANDS.items():
        of_one = commands.add_parser(each, help=command.help, description=command.help, formatter_class=_Help)
        if module is not None and each == name:
            of_one.description = module.__doc__ or command.help
            module.add_arguments(of_one)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as written, and room for the longest command beside its line of help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)
        self._action_max_length = max(map(len, COMMANDS)) + 4


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
