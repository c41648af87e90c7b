"""What a result was measured on."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from isolatent_train.config import Config

RESULTS = Path(__file__).parent / "results"


def write(name: str, packages: tuple[str, ...], measured: dict[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write `measured` with date, machine and versions to `folder`/NAME.json and return that path."""
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    result |= {"versions": {package: _version(package) for package in packages}} | measured
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def settings_of(config: Config) -> dict[str, Any]:
    """A configuration's values, the data's place without the folders above it: they say nothing to others."""
    values = config.values()
    source, colon, place = values["data"]["spec"].partition(":")
    values["data"]["spec"] = f"{source}{colon}{Path(place).name}"
    return values


def described(found: dict[str, Any]) -> str:
    """A sentence of what a result, as `write` left it, was measured on."""
    machine, versions = found["machine"], found["versions"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    place = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    return f"{place}, Python {machine['python']}, {used}; {found['date'][:10]}."


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, Python, GPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
