"""Where figures were computed: device, processor and versions, for results that others will read."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from isolatent import __version__

PACKAGES = ("torch", "numpy", "scikit-learn")


def machine(device: torch.device) -> dict[str, str]:
    """Facts by name, no host or user name among them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name}, threads: {torch.get_num_threads()})" if device.type == "cpu" else name,
        "system": f"{platform.system()} {platform.release()}",
        "isolatent": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
