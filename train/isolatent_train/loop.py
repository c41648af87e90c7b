"""The training loop, top to bottom: set up or resume, update by update, epoch by epoch, write the weights.

Every random draw of an update depends on (seed, update) alone. A run that is killed and resumed therefore computes
exactly what it would have computed uninterrupted: bit-identical weights on the same CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from isolatent_export.pictures import save_grid
from isolatent_train import checkpoint, grids
from isolatent_train import run as files
from isolatent_train.checkpoint import State
from isolatent_train.compiling import require_compiler
from isolatent_train.config import Config, TrainingSection
from isolatent_train.data import DataError, Labelled, Splits
from isolatent_train.distributed import Team, team
from isolatent_train.evaluation.encoding import batch_size, posteriors
from isolatent_train.fitting import require_fitting
from isolatent_train.likelihoods import Likelihood, build_likelihood
from isolatent_train.models import VAE
from isolatent_train.run import RunError, forget_after, initial_model, write_atomically
from isolatent_train.step import TrainingStep
from isolatent_train.streams import stream
from isolatent_train.trackers import Nowhere, Tracker, build_tracker, require_tracker

PATIENCE = 10
"""Consecutive updates with a non-finite loss or gradient after which a run stops."""

ACCEPTED = "updates"
"""Beside the sums of terms: how many updates are in them."""


class DivergenceError(RunError):
    """Losses or gradients stayed non-finite."""


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

    `on_update` and `on_epoch` are called after each update and with each line of the history. Started by torchrun, the
    processes share the work. Raises RunError when `out` holds another run, DivergenceError when the loss stays
    non-finite, DataError when there is too little data.
    """
    with team(device or torch.device("cpu")) as (crew, own_device):
        _train(config, splits, out, resume, crew, own_device, on_update, on_epoch)
    return out


def _train(
    config: Config,
    splits: Splits,
    out: Path,
    resume: bool,
    crew: Team,
    device: torch.device,
    on_update: Callable[[State], None],
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    settings = config.training
    require_fitting(config, splits.spec)
    require_tracker(settings.tracker)
    if settings.compile:
        require_compiler(device)
    per_epoch = _updates_per_epoch(settings, len(splits.train), crew)
    total = settings.epochs * per_epoch

    # ---- set up, or continue where a checkpoint left off ----
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    model = initial_model(config, splits.spec).to(device, memory_format=layout)  # type: ignore[call-overload]
    likelihood = build_likelihood(config.likelihood)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    average = _average(model, settings)
    modules = {"model": model, "optimiser": optimiser} | ({"average": average} if average else {})
    kept: VAE = average.module if average else model
    if crew.leads:
        files.start(config, splits, out, updates=total, resume=resume)
    crew.wait()
    if (out / files.WEIGHTS).is_file():
        return  # resumed a complete run
    state = State()
    if (out / files.CHECKPOINT).is_file():
        state = checkpoint.restore(out / files.CHECKPOINT, modules, device)
    crew.wait()
    if crew.leads:
        forget_after(out / files.HISTORY, state.update)
    tracker: Tracker = build_tracker(config, out) if crew.leads else Nowhere(config, out)
    if settings.compile:
        model.encoder.compile()
        model.decoder.compile()
    step = crew.wrap(TrainingStep(model, likelihood, config), device)
    pixels, validation = splits.train.inputs.to(device), splits.validation.to(device)

    # ---- epoch by epoch, update by update ----
    for epoch in range(state.update // per_epoch, settings.epochs):
        if _agreed(0 < settings.early_stopping <= epoch - state.best_epoch, crew, device):
            break
        order = torch.randperm(len(pixels), generator=stream(config.seed, "order", epoch)).to(device)
        sums = {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in state.sums.items()}
        started, first = time.perf_counter(), state.update
        while state.update < (epoch + 1) * per_epoch:
            position = state.update % per_epoch
            batch = order[position * settings.batch_size : (position + 1) * settings.batch_size]
            generator = stream(config.seed, f"update of {crew.rank}", state.update, device)
            rate = _learning_rate(settings, state.update / total)
            terms = _update(
                step, optimiser, pixels[crew.share(batch)], generator, config, state.update / total, rate, crew
            )
            if average:
                average.update_parameters(model)
            _account(state, sums, terms, out)
            state.update += 1
            on_update(state)
            every = settings.checkpoint_updates
            if every and state.update % every == 0 and state.update % per_epoch:
                state.sums = _gathered(sums, crew)
                _save(out, modules, state, crew)

        # ---- the epoch's figures, pictures and checkpoint ----
        gathered = _gathered(sums, crew)
        accepted = gathered.pop(ACCEPTED, 0.0)
        means = {f"train_{name}": value / accepted for name, value in gathered.items()}
        state.sums = {}
        speed = (state.update - first) * settings.batch_size / (time.perf_counter() - started)
        if crew.leads:
            row = {"epoch": epoch + 1, "update": state.update, "learning_rate": rate, "skipped": state.skipped}
            with torch.compiler.set_stance("force_eager"):  # batches of other sizes would be compiled anew
                row |= means | _validate(kept, likelihood, validation, config) | {"images_per_second": round(speed, 1)}
                _record(row, out, tracker, on_epoch)
            if _is_better(state, row, epoch) and settings.early_stopping:
                _write_weights(kept, out / files.BEST)
        _save(out, modules, state, crew)
        if crew.leads and settings.pictures and (epoch + 1) % settings.pictures == 0:
            with torch.compiler.set_stance("force_eager"):
                _draw(kept, likelihood, validation, out, row, tracker)

    # ---- done ----
    if crew.leads:
        files.finish(out, epochs=state.update // per_epoch, updates=state.update)
        if settings.early_stopping:
            write_atomically(out / files.WEIGHTS, (out / files.BEST).read_bytes())
        else:
            _write_weights(kept, out / files.WEIGHTS)
    tracker.close()
    crew.wait()


def _updates_per_epoch(settings: TrainingSection, images: int, crew: Team) -> int:
    if settings.batch_size % crew.size:
        raise RunError(
            f"training.batch_size={settings.batch_size} does not divide among {crew.size} processes; "
            f"make it a multiple of {crew.size}"
        )
    updates = images // settings.batch_size  # the last, smaller batch of an epoch is left out
    if updates == 0:
        raise DataError(
            f"{images} training images, fewer than one batch of {settings.batch_size}; "
            "give more images or lower training.batch_size"
        )
    return updates


def _average(model: VAE, settings: TrainingSection) -> Any:
    """The moving average of weights and normalisation statistics, or None."""
    if not settings.ema:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)


def _update(
    step: nn.Module,
    optimiser: torch.optim.Optimizer,
    pixels: Tensor,
    generator: torch.Generator,
    config: Config,
    progress: float,
    rate: float,
    crew: Team,
) -> dict[str, Tensor] | None:
    """One optimiser step on pixels (B, H, W, C) uint8: its terms, or None when it was left out as non-finite."""
    step.train()
    buffers = [(buffer, buffer.clone()) for buffer in step.buffers()]  # the statistics of normalisation
    warmup, annealing = _ramp(progress, config.objective.warmup), _ramp(progress, config.objective.beta_warmup)
    loss, terms = step(pixels, generator, warmup, annealing)
    optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(step.parameters(), config.training.clip_norm)
    if not torch.isfinite(crew.mean(loss.detach() + norm)):  # all processes decide alike
        for buffer, before in buffers:
            buffer.copy_(before)
        return None
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    named: dict[str, Tensor] = terms
    return named


def _account(state: State, sums: dict[str, Tensor], terms: dict[str, Tensor] | None, out: Path) -> None:
    if terms is not None:
        state.streak = 0
        for name, value in {**terms, ACCEPTED: torch.ones((), device=next(iter(terms.values())).device)}.items():
            sums[name] = sums.get(name, 0) + value.double()
        return
    state.skipped += 1
    state.streak += 1
    if state.streak >= PATIENCE:
        good = out / files.CHECKPOINT
        kept = f" (last good state: {good})" if good.is_file() else ""
        raise DivergenceError(
            f"loss or gradient not finite in {PATIENCE} updates up to {state.update + 1}; lower "
            f"training.learning_rate or objective.lambda and train again{kept}"
        )


def _learning_rate(settings: TrainingSection, progress: float) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _ramp(progress: float, length: float) -> float:
    """From 0 to 1 over the first `length` of the run."""
    return min(1.0, progress / length) if length else 1.0


def _gathered(sums: dict[str, Tensor], crew: Team) -> dict[str, float]:
    """Sums over the team's shares, as means over it."""
    if not sums:
        return {}
    values = crew.mean(torch.stack(list(sums.values())))
    return dict(zip(sums, values.tolist(), strict=True))


def _agreed(stop: bool, crew: Team, device: torch.device) -> bool:
    """Whether the leader, which alone validates, wants to stop."""
    return bool(crew.mean(torch.tensor(float(stop and crew.leads), device=device)) > 0)


@torch.no_grad()
def _validate(model: VAE, likelihood: Likelihood, data: Labelled, config: Config) -> dict[str, float]:
    """Mean ELBO (beta 1), reconstruction and KL in nats on untransformed images, with the same draws each time."""
    model.eval()
    generator = stream(config.seed, "validation", 0, data.inputs.device)
    sums = torch.zeros(2, device=data.inputs.device)
    for part in data.inputs.split(min(512, batch_size(data.inputs))):
        targets = likelihood.targets(model.codec.to_network(part), generator)
        posterior = model.encode(targets)
        outputs = model.decode(posterior.sample(generator))
        sums += torch.stack([likelihood.log_prob(outputs[None], targets).sum(), posterior.kl().sum()])
    reconstruction, kl = (sums / len(data)).tolist()
    return {
        "validation_elbo": reconstruction - kl,
        "validation_reconstruction": reconstruction,
        "validation_kl": kl,
    }


def _record(row: dict[str, Any], out: Path, tracker: Tracker, on_epoch: Callable[[dict[str, Any]], None]) -> None:
    with (out / files.HISTORY).open("a") as history:
        history.write(json.dumps(row) + "\n")
    tracker.figures(row)
    on_epoch(row)


def _is_better(state: State, row: dict[str, Any], epoch: int) -> bool:
    """Whether this epoch's validation ELBO is the best yet, which the state then remembers."""
    if state.best is not None and not row["validation_elbo"] > state.best:
        return False
    state.best, state.best_epoch = row["validation_elbo"], epoch + 1
    return True


def _draw(model: VAE, likelihood: Likelihood, data: Labelled, out: Path, row: dict[str, Any], tracker: Tracker) -> None:
    model.eval()
    pixels = data.inputs[:512]
    means = posteriors(model, pixels).mode()
    sheets = {
        "reconstructions": grids.reconstructions(model, likelihood, pixels[:12]),
        "samples": grids.samples(model, likelihood, device=pixels.device),
        "traversal": grids.traversal(model, likelihood, means),
    }
    (out / files.PICTURES).mkdir(exist_ok=True)
    for name, rows in sheets.items():
        path = out / files.PICTURES / f"epoch{row['epoch']:04d}-{name}.png"
        save_grid(rows, path)
        tracker.picture(name, path, row["update"])


def _save(out: Path, modules: dict[str, Any], state: State, crew: Team) -> None:
    if crew.leads:
        checkpoint.save(out / files.CHECKPOINT, modules, state)


def _write_weights(model: VAE, path: Path) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, to_safetensors(weights))
