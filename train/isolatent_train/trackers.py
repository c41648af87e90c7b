"""Where figures and pictures of a run go beside its own directory: TensorBoard, Weights & Biases, MLflow, or nowhere.

A new tracker is one class here and one line in `build_tracker`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from isolatent_train.config import Config
from isolatent_train.run import RunError


class Tracker(Protocol):
    """Receives what happens in a run."""

    def figures(self, row: dict[str, Any]) -> None:
        """One epoch's figures by name, with `update`."""

    def picture(self, name: str, path: Path, update: int) -> None:
        """A PNG file."""

    def close(self) -> None:
        """The run is over."""


class Nowhere:
    """Keeps nothing."""

    def __init__(self, config: Config, out: Path) -> None:
        """Nothing to open."""

    def figures(self, row: dict[str, Any]) -> None:
        """Ignored."""

    def picture(self, name: str, path: Path, update: int) -> None:
        """Ignored."""

    def close(self) -> None:
        """Nothing to do."""


class TensorBoard:
    """Event files in the run's tensorboard/."""

    def __init__(self, config: Config, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(out / "tensorboard"))
        self._writer.add_text("config", f"```json\n{config.model_dump_json(indent=2)}\n```")

    def figures(self, row: dict[str, Any]) -> None:
        """As scalars."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, row["update"])

    def picture(self, name: str, path: Path, update: int) -> None:
        """As an image."""
        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), update, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandB:
    """A Weights & Biases run; online or offline as the environment says (WANDB_MODE)."""

    def __init__(self, config: Config, out: Path) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run: Any = wandb.init(project="isolatent", name=config.name, config=config.values(), dir=str(out))

    def figures(self, row: dict[str, Any]) -> None:
        """As metrics."""
        self._run.log(row, step=row["update"])

    def picture(self, name: str, path: Path, update: int) -> None:
        """As an image."""
        self._run.log({name: self._wandb.Image(str(path))}, step=update)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """An MLflow run at the tracking address that the environment names (MLFLOW_TRACKING_URI)."""

    def __init__(self, config: Config, out: Path) -> None:  # noqa: ARG002 (MLflow has a place of its own)
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment("isolatent")
        mlflow.start_run(run_name=config.name)
        mlflow.log_dict(config.values(), "config.json")

    def figures(self, row: dict[str, Any]) -> None:
        """As metrics."""
        self._mlflow.log_metrics({name: float(value) for name, value in row.items()}, step=row["update"])

    def picture(self, name: str, path: Path, update: int) -> None:  # noqa: ARG002 (the file's name says when)
        """As an artifact."""
        self._mlflow.log_artifact(str(path), name)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def require_tracker(kind: str) -> None:
    """Raise RunError naming the package when that of a tracker is not installed."""
    if kind == "none":
        return
    try:
        import_module(kind)
    except ModuleNotFoundError as error:
        raise RunError(
            f"training.tracker={kind} needs a package: pip install {error.name}; or set training.tracker=none"
        ) from None


def build_tracker(config: Config, out: Path) -> Tracker:
    """The tracker that a configuration names."""
    kinds: dict[str, Any] = {"none": Nowhere, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
    tracker: Tracker = kinds[config.training.tracker](config, out)
    return tracker
