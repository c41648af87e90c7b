"""The two models that the serving benchmarks serve, trained for an epoch on a few digits: how fast they run does not
depend on what they have learnt. Made once, in benchmarks/runs/models/.
"""

from __future__ import annotations

from pathlib import Path

from isolatent_export.bundle import Bundle
from isolatent_train.bundling import export_run
from isolatent_train.config import Config
from isolatent_train.data import load_data
from isolatent_train.loop import train
from isolatent_train.run import Trained

FOLDER = Path(__file__).parent / "runs" / "models"
MODELS = {
    # As the recipe for MNIST has it: the server's own work counts more than the model's.
    "28x28x1-small": ["data.size=28", "model.latent=50", "model.channels=[16,32,64]"],
    "28x28x1": ["data.size=28", "model.latent=50", "model.channels=[64,128,256]"],
    # An encoder of 1.8 million weights.
    "64x64x3": [
        "data.size=64",
        "data.channels=3",
        "likelihood.kind=logistic",
        "model.latent=128",
        "model.channels=[32,64,128,256]",
    ],
    # So heavy that nothing but the model counts.
    "96x96x3": [
        "data.size=96",
        "data.channels=3",
        "likelihood.kind=logistic",
        "model.net=residual",
        "model.latent=128",
        "model.channels=[32,64,128,256]",
    ],
}
"""Name -> how its training differs from the recipe `digits`."""
NAMES = f"of {', '.join(MODELS)}, or folders of bundles"
_SHORT = ["data.limit=64", "training.epochs=1", "training.tracker=none"]


def bundle(name: str) -> Bundle:
    """The bundle of one of `MODELS`, trained and exported unless that was done before; or that in the folder `name`."""
    out = FOLDER / name if name in MODELS else Path(name)
    if name in MODELS and not out.exists():
        config = Config.load("digits", [f"name=bench-{name}", *MODELS[name], *_SHORT])
        splits = load_data(config.data)
        run = train(config, splits, FOLDER / f"{name}-run", resume=True)
        export_run(Trained.open(run), splits, {}, out)
    return Bundle.open(out)
