"""Training speed beside its peers: the same network, batch and data in isolatent, in pythae and in a bare loop.

    pip install -e ".[bench]"
    python benchmarks/training_speed.py --data idx:DIR

The bare loop does nothing but forward, backward and step, eager and in fp32; it is the limit that features are measured
against. isolatent runs as users run it: validation, history, checkpoints, TensorBoard, divergence guard, gradient
clipping. The first epoch, in which networks are compiled, is not counted; from then on the contestants take turns of a
dozen updates. Prints a table and writes benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, settings_of, write
from turns import Turn, contest, ratio

from isolatent_train.codecs import Pixels
from isolatent_train.config import Config
from isolatent_train.data import Splits, load_data
from isolatent_train.likelihoods import build_likelihood
from isolatent_train.loop import train
from isolatent_train.run import initial_model
from isolatent_train.transforms import transform

REFERENCES = {"VAE": "VAE: bare loop, eager fp32", "CR-VAE": "CR-VAE: bare loop, eager fp32, one pass per view"}
"""What the others of a model are compared with."""

FAST = ["training.precision=bf16", "training.compile=true", "training.channels_last=true"]


def main() -> None:
    """Time all cases in turns; report each one's speed over the bare loop's of the same objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--limit", type=int, default=40_000, help="training images (40000)")
    parser.add_argument("--epochs", type=int, default=8, help="timed epochs, after one that is not (8)")
    parser.add_argument("--turn", type=int, default=12, help="updates per turn (12); an epoch has to have a multiple")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe mnist, as for train")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help='cases, as "CR-VAE: *" (all), beside the bare loop'
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    args = parser.parse_args()

    common = [f"data.spec={args.data}", f"data.limit={args.limit}", f"training.epochs={args.epochs + 1}", *args.set]
    base, regularized = (Config.load("mnist", [*common, f"objective.arm={arm}"]) for arm in ("base", "cr"))
    size, images = base.training.batch_size, len(load_data(base.data).train)
    per_epoch, rest = divmod(images // size, args.turn)
    if rest or not per_epoch:
        parser.error(f"--turn {args.turn}: an epoch of {images} images has {images // size} updates of {size}")
    cases: dict[str, Callable[[Turn], float | None]] = {
        REFERENCES["VAE"]: partial(bare, base, args.device),
        "VAE: isolatent": partial(ours, base, args.device),
        "VAE: isolatent, fast": partial(ours, fast(base), args.device),
        "VAE: pythae": partial(pythae, base, args.device),
        REFERENCES["CR-VAE"]: partial(bare, regularized, args.device),
        "CR-VAE: bare loop, eager fp32, both views in one batch": partial(
            bare, regularized, args.device, together=True
        ),
        "CR-VAE: isolatent, one pass per view": partial(ours, apart(regularized), args.device),
        "CR-VAE: isolatent, both views in one batch": partial(ours, regularized, args.device),
        "CR-VAE: isolatent, fast, one pass per view": partial(ours, apart(fast(regularized)), args.device),
        "CR-VAE: isolatent, fast, both views in one batch": partial(ours, fast(regularized), args.device),
    }
    if find_spec("pythae") is None:
        print('without pythae: pip install -e ".[bench]"', file=sys.stderr)
        del cases["VAE: pythae"]
    chosen = [name for name in cases if any(fnmatchcase(name, each) for each in args.only)]
    compared = {REFERENCES[name.split(":")[0]] for name in chosen}
    cases = {name: case for name, case in cases.items() if name in compared or name in chosen}
    seconds, elbos = contest(cases, turns=(args.epochs + 1) * per_epoch, length=args.turn)

    measured = {}
    timed = {name: taken[per_epoch:] for name, taken in seconds.items()}
    print(f"{'':<55} {'images/s':>9}  {'of bare':>7} {'95 % interval':>14}   validation ELBO")
    for name, taken in timed.items():
        speed, (low, high) = ratio(timed[REFERENCES[name.split(":")[0]]], taken)
        rate, elbo = len(taken) * args.turn * size / sum(taken), elbos[name]
        measured[name] = {
            "images_per_second": round(rate, 1),
            "milliseconds_per_update": round(1000 * size / rate, 3),
            "ratio_to_bare": round(speed, 3),
            "interval": [round(low, 3), round(high, 3)],
            "elbo": elbo,
            "seconds_of_turns": [round(one, 4) for one in taken],
        }
        shown = "" if elbo is None else f"{elbo:.2f}"
        print(f"{name:<55} {rate:>9,.0f}  {speed:>7.3f}  {low:.3f} to {high:.3f}   {shown}")
    facts = {"settings": settings_of(base), "fast": FAST, "device": args.device, "threads": torch.get_num_threads()}
    facts |= {"updates_per_turn": args.turn, "updates_per_epoch": per_epoch * args.turn}
    facts["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY")  # passive threads make small updates slower
    packages = ("isolatent", "torch", "pythae", "numpy")
    path = write("training_speed", packages, facts | {"cases": measured}, folder=args.results)
    print(f"{args.epochs} epochs in turns of {args.turn} updates. Written to {path}")


def fast(config: Config) -> Config:
    """The same with bf16, torch.compile and channels_last."""
    return _with(config, precision="bf16", compile=True, channels_last=True)


def apart(config: Config) -> Config:
    """The same with a pass per view."""
    return _with(config, views_together=False)


def _with(config: Config, **settings: Any) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=settings)})


def ours(config: Config, device: str, turn: Turn) -> float:
    """Our own loop with everything on; the validation ELBO at its end."""
    elbos: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            config,
            splits_of(config),
            Path(folder) / "run",
            device=torch.device(device),
            on_update=turn.update,
            on_epoch=lambda row: elbos.append(row["validation_elbo"]),
        )
    return elbos[-1]


def bare(config: Config, device: str, turn: Turn, *, together: bool = False) -> None:
    """The shortest loop that computes the same objective, views apart or in one batch."""
    splits = splits_of(config)
    model = initial_model(config, splits.spec).to(device).train()
    likelihood = build_likelihood(config.likelihood)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate)
    generator = torch.Generator(device).manual_seed(0)
    pixels, size = splits.train.inputs.to(device), config.training.batch_size

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
            turn.update()


def pythae(config: Config, device: str, turn: Turn) -> None:
    """The trainer of pythae: same networks, batch and optimiser; its pixels are binarised once."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    splits = splits_of(config)
    network = initial_model(config, splits.spec)
    whole = len(splits.train) // config.training.batch_size * config.training.batch_size  # it has no drop_last

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
        def on_train_step_end(self, *_: Any, **__: Any) -> None:
            turn.update()

    images = Pixels().to_network(splits.train.inputs[:whole]).round()
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
            no_cuda=device == "cpu",
        )
        dataset = BaseDataset(images, torch.zeros(len(images)))
        BaseTrainer(model=model, train_dataset=dataset, training_config=settings, callbacks=[Clock()]).train()
        logging.disable(logging.NOTSET)


def splits_of(config: Config) -> Splits:
    """The data; little of it for validation, which the others do without and would be most of so short an epoch."""
    splits = load_data(config.data)
    return replace(splits, validation=splits.validation[:500])


if __name__ == "__main__":
    main()
