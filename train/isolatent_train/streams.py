"""Random streams: every draw of a run comes from (seed, purpose, index), so a resumed run needs no stored state."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str, index: int = 0, device: torch.device | None = None) -> torch.Generator:
    """A generator of its own for the `index`-th use of `purpose` in a run with this seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    generator = torch.Generator(device or torch.device("cpu"))
    return generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
