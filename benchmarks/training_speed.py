"""Training speed beside its peers: the same network, batch and data in isolatent, in pythae and in a bare loop.

    pip install -e ".[bench]"
    python benchmarks/training_speed.py --data idx:DIR [--rounds 3]

The bare loop does nothing but forward, backward and step, eager and in fp32; it is the limit that features are measured
against. isolatent runs as users run it: validation, history, checkpoints, TensorBoard, divergence guard, gradient
clipping. A round goes through the cases and back, which cancels a machine's drift; what is timed starts after the first
epoch, so that no compilation is in it. Prints a table and writes benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import settings_of, write

from isolatent_train.codecs import Pixels
from isolatent_train.config import Config
from isolatent_train.data import Splits, load_data
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.loop import train
from isolatent_train.run import initial_model
from isolatent_train.transforms import transform

FAST = ["training.precision=bf16", "training.compile=true", "training.channels_last=true"]


def main() -> None:
    """Time every case twice per round; report medians and their ratio to the bare loop of the same objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--limit", type=int, default=20_000, help="training images (20000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs per visit, after one that is not (2)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe mnist, as for train")
    args = parser.parse_args()

    common = [f"data.spec={args.data}", f"data.limit={args.limit}", f"training.epochs={args.epochs + 1}", *args.set]
    base, regularized = (Config.load("mnist", [*common, f"objective.arm={arm}"]) for arm in ("base", "cr"))
    splits, device = load_data(base.data), torch.device(args.device)
    # The others do not validate at all; a full validation split would be most of so short an epoch.
    splits = replace(splits, validation=splits.validation[:500])
    cases: dict[str, Callable[[], tuple[float, float | None]]] = {
        "VAE: bare loop, eager fp32": lambda: bare(base, splits, device),
        "VAE: isolatent": lambda: ours(base, splits, device),
        "VAE: isolatent, fast": lambda: ours(fast(base), splits, device),
        "VAE: pythae": lambda: pythae(base, splits, device),
        "CR-VAE: bare loop, eager fp32, one pass per view": lambda: bare(regularized, splits, device),
        "CR-VAE: bare loop, eager fp32, both views in one batch": lambda: bare(
            regularized, splits, device, together=True
        ),
        "CR-VAE: isolatent": lambda: ours(regularized, splits, device),
        "CR-VAE: isolatent, fast": lambda: ours(fast(regularized), splits, device),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    elbos: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(args.rounds):
        visits: dict[str, list[float]] = {name: [] for name in cases}
        for name in [*cases, *reversed(cases)]:
            rate, elbo = cases[name]()
            visits[name].append(rate)
            elbos[name] += [] if elbo is None else [elbo]
            print(f"round {number + 1}: {name:<50} {rate:>9,.0f} images/s", flush=True)
        for name in cases:
            rates[name].append(statistics.harmonic_mean(visits[name]))

    measured = {}
    print(f"\n{'':<50} {'images/s':>9}  of bare   validation ELBO")
    for name in cases:
        median = statistics.median(rates[name])
        ratio = statistics.median([r / b for r, b in zip(rates[name], _of_bare(rates, name), strict=True)])
        elbo = statistics.fmean(elbos[name]) if elbos[name] else None
        measured[name] = {
            "images_per_second": round(median, 1),
            "rounds": rates[name],
            "ratio_to_bare": round(ratio, 3),
        }
        measured[name] |= {"milliseconds_per_update": round(1000 * base.training.batch_size / median, 3), "elbo": elbo}
        print(f"{name:<50} {median:>9,.0f}  {ratio:>7.2f}   {'' if elbo is None else f'{elbo:.2f}'}")
    facts = {"settings": settings_of(base), "fast": FAST, "device": str(device), "threads": torch.get_num_threads()}
    facts["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY")  # passive threads make small updates slower
    path = write("training_speed", ("isolatent", "torch", "pythae", "numpy"), facts | {"cases": measured})
    print(f"Medians of {args.rounds} rounds there and back, ratios within each round. Written to {path}")


def _of_bare(rates: dict[str, list[float]], name: str) -> list[float]:
    return next(values for bare, values in rates.items() if bare.startswith(name.split(":")[0]))


def fast(config: Config) -> Config:
    """The same with bf16, torch.compile and channels_last."""
    training = config.training.model_copy(update={"precision": "bf16", "compile": True, "channels_last": True})
    return config.model_copy(update={"training": training})


def ours(config: Config, splits: Splits, device: torch.device) -> tuple[float, float]:
    """Images per second of isolatent's own loop with everything on, and the validation ELBO at its end."""
    ends: list[float] = []
    elbos: list[float] = []

    def note(row: dict[str, Any]) -> None:
        ends.append(time.perf_counter())
        elbos.append(row["validation_elbo"])

    with tempfile.TemporaryDirectory() as folder:
        train(config, splits, Path(folder) / "run", device=device, on_epoch=note)
    torch._dynamo.reset()
    return _rate(config, splits, ends), elbos[-1]


def bare(config: Config, splits: Splits, device: torch.device, *, together: bool = False) -> tuple[float, None]:
    """Images per second of the shortest loop that computes the same objective, views apart or in one batch."""
    model = initial_model(config, splits.spec).to(device).train()
    likelihood = build_likelihood(config.likelihood)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate)
    generator = torch.Generator(device).manual_seed(0)
    pixels, size, ends = splits.train.inputs.to(device), config.training.batch_size, []

    def bound(x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        q = model.encode(x)
        outputs = model.decode(q.sample(generator))
        return (likelihood.log_prob(outputs[None], x)[0] - q.kl()).mean(), q

    for _ in range(config.training.epochs):
        order = torch.randperm(len(pixels), device=device)
        for start in range(0, len(pixels) - size + 1, size):
            images = Pixels().to_network(pixels[order[start : start + size]])
            targets = likelihood.targets(images, generator)
            if config.objective.arm == "base":
                loss = -bound(targets)[0]
            else:
                moved = likelihood.targets(transform(images, config.transforms, generator), generator)
                if together:
                    value, both = bound(torch.cat([targets, moved]))
                    loss = -2 * value + config.objective.weight * both[size:].kl(both[:size]).mean()
                else:
                    (value, q), (second, moved_q) = bound(targets), bound(moved)
                    loss = -value - second + config.objective.weight * moved_q.kl(q).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return _rate(config, splits, ends), None


def pythae(config: Config, splits: Splits, device: torch.device) -> tuple[float, None]:
    """Images per second of pythae's trainer: same networks, batch and optimiser; its pixels are binarised once."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    network = initial_model(config, splits.spec)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network.encoder

        def forward(self, x: torch.Tensor) -> Any:
            mean, log_variance = self.network(x)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network.decoder

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    class Clock(TrainingCallback):  # type: ignore[misc]
        ends: list[float] = []  # noqa: RUF012

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    clock = Clock()
    clock.ends = []
    images = Pixels().to_network(splits.train.inputs).round()
    shape = tuple(images.shape[1:])
    model = VAE(
        VAEConfig(input_dim=shape, latent_dim=config.model.latent, reconstruction_loss="bce"), Encoder(), Decoder()
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=config.training.epochs,
            learning_rate=config.training.learning_rate,
            per_device_train_batch_size=config.training.batch_size,
            optimizer_cls="Adam",
            no_cuda=device.type == "cpu",
        )
        dataset = BaseDataset(images, torch.zeros(len(images)))
        BaseTrainer(model=model, train_dataset=dataset, training_config=settings, callbacks=[clock]).train()
        logging.disable(logging.NOTSET)
    return _rate(config, splits, clock.ends), None


def _rate(config: Config, splits: Splits, ends: list[float]) -> float:
    updates = len(splits.train) // config.training.batch_size
    return updates * config.training.batch_size * (len(ends) - 1) / (ends[-1] - ends[0])


if __name__ == "__main__":
    main()
