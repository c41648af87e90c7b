"""What a run is resumed from: weights, optimiser and counters, as tensors and plain numbers only."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from isolatent_train.run import RunError, write_atomically


@dataclass
class State:
    """Everything a checkpoint holds beside the modules' own state."""

    update: int = 0
    skipped: int = 0
    """Updates left out so far because of a non-finite loss or gradient."""
    streak: int = 0
    """Those among them that just happened in a row."""
    sums: dict[str, float] = field(default_factory=dict)
    """Terms summed over the current epoch's accepted updates, and their number."""
    best: float | None = None
    """Best validation ELBO so far, in nats."""
    best_epoch: int = 0


def save(path: Path, modules: dict[str, Any], state: State) -> None:
    """Write the `state_dict` of each module, and the state, as a whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"state": asdict(state), **{name: module.state_dict() for name, module in modules.items()}}, buffer)
    write_atomically(path, buffer.getvalue())


def restore(path: Path, modules: dict[str, Any], device: torch.device) -> State:
    """Load each module's state and return the counters. Raises RunError when the file is broken or of another shape."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved[name])
        return State(**saved["state"])
    except Exception as error:  # torch raises many kinds for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: cannot resume ({reason}); delete it to start this run over") from None
