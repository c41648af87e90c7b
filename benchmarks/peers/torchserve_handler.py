"""The encoder under TorchServe: the handler in the archive that ../contestants.py packs. It runs the TorchScript."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from common import Array, decode, posteriors


class Handler:
    """TorchServe calls `initialize` once per worker, then `handle` with a batch."""

    def initialize(self, context: Any) -> None:
        """Load model.ts from the unpacked archive."""
        torch.set_num_threads(int(os.environ["THREADS"]))
        path = Path(context.system_properties["model_dir"]) / "model.ts"
        self.module = torch.jit.load(str(path), map_location="cpu").eval()

    def handle(self, data: list[dict[str, Any]], _context: Any) -> list[bytes]:
        """Bodies -> answers."""
        return posteriors(self._encode, [decode(row.get("body") or row.get("data")) for row in data])

    def _encode(self, pixels: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            mean, log_variance = self.module.encode(torch.from_numpy(pixels))
        return mean.numpy(), log_variance.numpy()
