"""What `import isolatent` costs and offers."""

from __future__ import annotations

import subprocess
import sys

import isolatent

HEAVY = (
    "torch",
    "fastapi",
    "starlette",
    "PIL",
    "open3d",
    "trimesh",
    "pydantic",
    "safetensors",
    "onnxruntime",
    "pyarrow",
    "fsspec",
    "ray",
    "isolatent_export",
    "isolatent_serve",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_loads_no_heavy_package() -> None:
    loaded = run("import isolatent, isolatent.cli, sys; print(*sys.modules)").split()
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_importing_takes_well_under_a_second() -> None:
    code = "import time; s = time.process_time(); import isolatent; print(time.process_time() - s)"
    assert min(float(run(code)) for _ in range(3)) < 0.6


def test_everything_announced_is_there() -> None:
    assert set(isolatent.__all__) == {name for name in vars(isolatent) if name[0].isupper()} | {"__version__"}
    assert isolatent.__version__ == "0.1.0"
