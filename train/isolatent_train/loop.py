"""The training loop, top to bottom: set up or resume, update by update, epoch by epoch, write the weights.

Every random draw of an update depends on (seed, update) alone. A run that is killed and resumed therefore computes
exactly what it would have computed uninterrupted: bit-identical weights on the same CPU.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from isolatent_export.manifest import Training
from isolatent_train import run as files
from isolatent_train.config import Config, TrainingSection
from isolatent_train.consistency import Loss, Objective, build_objective
from isolatent_train.data import DataError, Labelled, Splits
from isolatent_train.likelihoods import Likelihood, build_likelihood
from isolatent_train.models import VAE
from isolatent_train.pixels import to_images
from isolatent_train.run import RunError, git_revision, initial_model, write_atomically
from isolatent_train.streams import stream
from isolatent_train.transforms import transform

PATIENCE = 10
"""Consecutive updates with a non-finite loss or gradient after which a run stops."""


class DivergenceError(RunError):
    """Losses or gradients stayed non-finite."""


@dataclass
class State:
    """Everything a checkpoint holds beside the model and the optimiser."""

    update: int = 0
    skipped: int = 0
    """Updates left out so far because of a non-finite loss or gradient."""
    streak: int = 0
    """Those among them that just happened in a row."""
    sums: dict[str, float] = field(default_factory=dict)
    """Terms summed over the current epoch's updates."""


def train(
    config: Config,
    splits: Splits,
    out: Path,
    *,
    resume: bool = False,
    device: torch.device | None = None,
    on_update: Callable[[State], None] = lambda _state: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _row: None,
) -> Path:
    """Train as configured and leave a complete run in `out`, which is returned.

    `on_update` and `on_epoch` are called after each update and with each line of the history. Raises RunError when
    `out` holds another run, DivergenceError when the loss stays non-finite, DataError when there is too little data.
    """
    device = device or torch.device("cpu")
    settings = config.training
    updates_per_epoch = len(splits.train) // settings.batch_size  # the last, smaller batch is left out
    if updates_per_epoch == 0:
        raise DataError(
            f"{len(splits.train)} training images, fewer than one batch of {settings.batch_size}; "
            "give more images or lower training.batch_size"
        )
    total = settings.epochs * updates_per_epoch

    # ---- set up, or continue where a checkpoint left off ----
    model = initial_model(config, splits.spec).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    objective, likelihood = build_objective(config.objective), build_likelihood(config.likelihood)
    data, validation = splits.train.to(device), splits.validation.to(device)
    state = _start(config, splits, out, total, resume=resume)
    if (out / files.WEIGHTS).is_file():
        return out  # resumed a complete run
    if (out / files.CHECKPOINT).is_file():
        state = _restore(out / files.CHECKPOINT, model, optimiser, device)
    _forget_after(out / files.HISTORY, state.update)

    # ---- update by update ----
    while state.update < total:
        epoch, position = divmod(state.update, updates_per_epoch)
        batch = _batch(data, config, epoch, position, device)
        rate = _learning_rate(settings, state.update / total)
        loss = _update(model, optimiser, objective, likelihood, batch, config, state, total, rate)
        _account(state, loss, out)
        state.update += 1
        on_update(state)
        if position == updates_per_epoch - 1:
            row = {"epoch": epoch + 1, "update": state.update, "learning_rate": rate, "skipped": state.skipped}
            row |= {f"train_{name}": value / updates_per_epoch for name, value in state.sums.items()}
            row |= {
                f"validation_{name}": value for name, value in _validate(model, likelihood, validation, config).items()
            }
            with (out / files.HISTORY).open("a") as history:
                history.write(json.dumps(row) + "\n")
            on_epoch(row)
            state.sums = {}
        every = settings.checkpoint_updates
        if position == updates_per_epoch - 1 or (every and state.update % every == 0):
            _save(out / files.CHECKPOINT, model, optimiser, state)

    # ---- done ----
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(out / files.WEIGHTS, save(weights))
    return out


def _update(
    model: VAE,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    likelihood: Likelihood,
    images: Tensor,
    config: Config,
    state: State,
    total: int,
    rate: float,
) -> Loss | None:
    """One optimiser step on images (B, C, H, W). Returns None when it was left out as non-finite."""
    generator = stream(config.seed, "update", state.update, images.device)
    transformed = None
    if config.objective.arm != "base":
        # The grey image is transformed first, then turned into targets: interpolation would blur binary pixels.
        transformed = likelihood.targets(transform(images, config.transforms, generator), generator)
    targets = likelihood.targets(images, generator)
    warmup_updates = config.objective.consistency_warmup * total
    warmup = min(1.0, (state.update + 1) / warmup_updates) if warmup_updates else 1.0

    model.train()
    loss = objective(model, likelihood, targets, transformed, generator, warmup=warmup)
    optimiser.zero_grad()
    loss.value.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
    if not torch.isfinite(loss.value + norm):
        return None
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return loss


def _account(state: State, loss: Loss | None, out: Path) -> None:
    if loss is not None:
        state.streak = 0
        for name, value in loss.terms.items():
            state.sums[name] = state.sums.get(name, 0.0) + value.item()
        return
    state.skipped += 1
    state.streak += 1
    if state.streak >= PATIENCE:
        raise DivergenceError(
            f"loss or gradient not finite in {PATIENCE} updates up to {state.update + 1}; lower "
            f"training.learning_rate or objective.lambda and train again (last good state: {out / files.CHECKPOINT})"
        )


def _batch(data: Labelled, config: Config, epoch: int, position: int, device: torch.device) -> Tensor:
    """Images (B, C, H, W) of one update; the order of an epoch depends on (seed, epoch)."""
    order = torch.randperm(len(data), generator=stream(config.seed, "order", epoch))
    size = config.training.batch_size
    chosen = order[position * size : (position + 1) * size]
    return to_images(data.pixels[chosen.to(device)])


def _learning_rate(settings: TrainingSection, progress: float) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


@torch.no_grad()
def _validate(model: VAE, likelihood: Likelihood, data: Labelled, config: Config) -> dict[str, float]:
    """Mean ELBO (beta 1), reconstruction and KL in nats on untransformed images, with the same draws each time."""
    model.eval()
    generator = stream(config.seed, "validation", 0, data.pixels.device)
    sums = torch.zeros(2, device=data.pixels.device)
    for part in data.pixels.split(512):
        targets = likelihood.targets(to_images(part), generator)
        posterior = model.encode(targets)
        outputs = model.decode(posterior.sample(generator))
        sums += torch.stack([likelihood.log_prob(outputs[None], targets).sum(), posterior.kl().sum()])
    reconstruction, kl = (sums / len(data)).tolist()
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}


# ---- the run's directory ----


def _start(config: Config, splits: Splits, out: Path, total: int, *, resume: bool) -> State:
    file = out / files.CONFIG
    if file.is_file():
        if not resume:
            raise RunError(f"{out} holds a run; continue it with --resume, or choose another --out")
        before, now = json.loads(file.read_text()), config.values()
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            raise RunError(f"{out} was started with another {changed[0]}; use the same settings, or another --out")
        return State()
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out} is not empty and holds no run; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    training = Training(
        data=config.data,
        examples=splits.counts(),
        epochs=config.training.epochs,
        updates=total,
        seed=config.seed,
        git_revision=git_revision(),
    )
    facts = {"input": splits.spec.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    write_atomically(out / files.RUN, json.dumps(facts, indent=2).encode())
    write_atomically(file, json.dumps(config.values(), indent=2).encode())
    return State()


def _save(path: Path, model: VAE, optimiser: torch.optim.Optimizer, state: State) -> None:
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": vars(state)}, buffer)
    write_atomically(path, buffer.getvalue())


def _restore(path: Path, model: VAE, optimiser: torch.optim.Optimizer, device: torch.device) -> State:
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        return State(**saved["state"])
    except Exception as error:  # torch raises many kinds for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: cannot resume ({reason}); delete it to start this run over") from None


def _forget_after(history: Path, update: int) -> None:
    """Drop lines of epochs that ended after the checkpoint: they will be computed again."""
    if history.is_file():
        lines = history.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["update"] <= update]
        write_atomically(history, "".join(kept).encode())
