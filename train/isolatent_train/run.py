"""A run's directory: what training leaves behind, and a trained model read back from it or from a bundle.

config.json          the complete configuration
run.json             input specification, split sizes, sha256 of the split data, git revision
rejected.tsv         files of the data that could not be read, with the reason
history.jsonl        one line of figures per epoch
pictures/            grids made while training
checkpoint.pt        the state to resume from (tensors and plain numbers only)
best.safetensors     the best weights so far, with early stopping
weights.safetensors  the trained weights, written when the run is complete
evaluation.json      metrics, written by `isolatent evaluate`
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from isolatent_export.bundle import MANIFEST, Bundle
from isolatent_export.manifest import InputSpec, Training, input_spec
from isolatent_train.config import Config, ConfigError, flatten
from isolatent_train.data import Splits
from isolatent_train.likelihoods import Likelihood, build_likelihood
from isolatent_train.models import VAE, build_model
from isolatent_train.streams import stream

CONFIG = "config.json"
RUN = "run.json"
HISTORY = "history.jsonl"
CHECKPOINT = "checkpoint.pt"
BEST = "best.safetensors"
PICTURES = "pictures"
WEIGHTS = "weights.safetensors"
EVALUATION = "evaluation.json"
REJECTED = "rejected.tsv"


class RunError(Exception):
    """A run directory that cannot be used as asked; the message names the remedy."""


@dataclass(frozen=True)
class Trained:
    """A trained model in evaluation mode, with what is known about it."""

    path: Path
    config: Config
    spec: InputSpec
    model: VAE
    likelihood: Likelihood
    training: Training

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Trained:
        """Load a complete run or a bundle. Raises RunError or BundleError with the next step."""
        directory = Path(path)
        if (directory / MANIFEST).is_file():
            bundle = Bundle.open(directory)
            bundle.require_intact()
            spec, training = bundle.manifest.input, bundle.manifest.training
        elif (directory / RUN).is_file():
            spec, training = _facts(directory)
        else:
            raise RunError(f"{directory}: neither a run nor a bundle; make a run with: isolatent train digits")
        if not (directory / WEIGHTS).is_file():
            raise RunError(f"{directory}: the run is not complete; continue it with --resume")
        try:
            config = Config.load(str(directory / CONFIG))
            likelihood = build_likelihood(config.likelihood)
            model = build_model(config.model, spec, likelihood)
            model.load_state_dict(load_file(directory / WEIGHTS))
        except (ConfigError, SafetensorError, RuntimeError) as error:
            reason = _first_line(error)
            raise RunError(f"{directory}: weights or configuration do not load ({reason}); train again") from None
        return cls(directory, config, spec, model.eval(), likelihood, training)

    def untrained(self) -> VAE:
        """The same network as it was before the first update, in evaluation mode."""
        return initial_model(self.config, self.spec).eval()

    def evaluation(self) -> dict[str, Any] | None:
        """Metrics of an earlier `isolatent evaluate`, or None."""
        file = self.path / EVALUATION
        return json.loads(file.read_text())["metrics"] if file.is_file() else None


def start(config: Config, splits: Splits, out: Path, *, updates: int, resume: bool) -> None:
    """Make `out` the directory of a new run of so many updates, or check that it holds the one to continue.

    Raises RunError when `out` holds another run, one of other data, or files of somebody else.
    """
    file = out / CONFIG
    if file.is_file():
        if not resume:
            raise RunError(f"{out} holds a run; continue it with --resume, or choose another --out")
        before, now = (dict(flatten(values)) for values in (_read(file), config.values()))
        changed = [key for key in before | now if before.get(key) != now.get(key)]
        if changed:
            was = f"{changed[0]}={before.get(changed[0])}"
            raise RunError(f"{out} was started with {was}; continue with the same settings, or choose another --out")
        require_unchanged(out, _facts(out)[1], splits.fingerprint(), "restore it, or choose another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out} is not empty and holds no run; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    training = Training(
        data=config.data.spec,
        data_sha256=splits.fingerprint(),
        examples=splits.counts(),
        epochs=config.training.epochs,
        updates=updates,
        seed=config.seed,
        git_revision=git_revision(),
    )
    if splits.rejected:
        lines = [f"{each.path}\t{each.reason}\n" for each in splits.rejected]
        write_atomically(out / REJECTED, "".join(["path\treason\n", *lines]).encode())
    _write_facts(out, splits.spec, training)
    write_atomically(file, json.dumps(config.values(), indent=2).encode())


def require_unchanged(path: Path, training: Training, fingerprint: str, remedy: str) -> None:
    """Raise RunError, with the remedy, when what is in `path` was trained on data of another fingerprint.

    Random splits are drawn anew at each load: one more file moves inputs from the training split to the test split.
    """
    if training.data_sha256 not in (fingerprint, None):
        raise RunError(f"{path}: the data has changed since training, test inputs may have been trained on; {remedy}")


def finish(out: Path, *, epochs: int, updates: int) -> None:
    """Record how long the run really was: early stopping may have ended it before the configured number of epochs."""
    spec, training = _facts(out)
    _write_facts(out, spec, training.model_copy(update={"epochs": epochs, "updates": updates}))


def _facts(out: Path) -> tuple[InputSpec, Training]:
    facts = _read(out / RUN)
    try:
        return input_spec(facts["input"]), Training(**facts["training"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(out / RUN, error) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None
    if not isinstance(values, dict):
        raise _unreadable(file, ValueError("no JSON object"))
    return values


def _unreadable(file: Path, error: Exception) -> RunError:
    return RunError(f"{file}: cannot be read ({_first_line(error)}); train again in another folder")


def _write_facts(out: Path, spec: InputSpec, training: Training) -> None:
    facts = {"input": spec.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    write_atomically(out / RUN, json.dumps(facts, indent=2).encode())


def forget_after(history: Path, update: int) -> None:
    """Drop the history's lines of epochs that ended after the checkpoint: they will be computed again."""
    if history.is_file():
        lines = history.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["update"] <= update]
        write_atomically(history, "".join(kept).encode())


def initial_model(config: Config, spec: InputSpec) -> VAE:
    """The network with its initial weights, a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, "initial weights").initial_seed())
        return build_model(config.model, spec, build_likelihood(config.likelihood))


def git_revision() -> str | None:
    """Commit of the repository the user stands in, with `+changes` when files differ from it; None outside of one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` as a whole, also when the process or the machine dies in the middle. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
