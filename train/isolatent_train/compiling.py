"""What torch.compile needs beside torch."""

from __future__ import annotations

import os
import shutil

import torch

from isolatent_train.run import RunError


def require_compiler(device: torch.device) -> None:
    """Raise RunError when there is no C++ compiler for what runs on a CPU."""
    named = os.environ.get("CXX")
    if device.type == "cpu" and not any(shutil.which(each) for each in ([named] if named else ["g++", "clang++"])):
        raise RunError(
            f"training.compile=true needs a C++ compiler and there is no {named or 'g++'}; apt-get install g++, "
            "or set training.compile=false"
        )
