"""`isolatent doctor`, the real command, on this machine and beside packages that do not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from isolatent import _machine

COMMAND = [sys.executable, "-m", "isolatent", "doctor"]


def doctor(*options: str, beside: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it, with the packages in the folder `beside` found first."""
    env = os.environ | ({"PYTHONPATH": str(beside)} if beside else {})
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, env=env, timeout=250, check=False)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What --json said, by name."""
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of an onnxruntime and a torch that cannot be imported."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libwanted.so.1: cannot open shared object file')")
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    return tmp_path


def test_it_says_what_is_installed_and_what_really_runs() -> None:
    done = doctor("--json")
    found = findings(done)
    assert json.loads(done.stdout)["healthy"] is (done.returncode == 0)
    assert done.returncode == int(any(finding["state"] == "broken" for finding in found.values()))
    assert found["onnxruntime"]["state"] == "ok"
    assert "a session runs on " in found["onnxruntime"]["detail"]
    assert ort.__version__ in found["onnxruntime"]["detail"]
    assert found["cores"]["detail"].startswith(f"{_machine.cores()} used")
    assert {"python", "isolatent", "extra serve", "cuda", "torch", "memory", "libGL.so.1", "java", "disk"} <= set(found)
    assert all(finding["remedy"] for finding in found.values() if finding["state"] != "ok")


def test_what_does_not_work_is_exit_code_1_with_what_mends_it(broken: Path) -> None:
    done = doctor(beside=broken)
    lines = done.stdout.splitlines()
    (onnxruntime,) = [line for line in lines if line.startswith("broken   onnxruntime")]
    assert "does not run: ImportError: libwanted.so.1" in onnxruntime
    assert lines[lines.index(onnxruntime) + 1].strip() == "-> pip install --force-reinstall onnxruntime"
    assert any(line.startswith("broken   torch") and "ended by signal 11" in line for line in lines)
    assert any(line.startswith("ok       python") for line in lines)  # it goes on
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("isolatent: error: onnxruntime: ")


def test_two_packages_of_onnx_runtime_are_both_named(broken: Path) -> None:
    facts = broken / "onnxruntime_gpu-1.31.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.0\n")
    done = doctor("--json", beside=broken)
    finding = findings(done)["onnxruntime"]
    assert (done.returncode, finding["state"]) == (1, "broken")
    assert f"onnxruntime {ort.__version__} and onnxruntime-gpu 1.31.0 are both installed" in finding["detail"]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding["remedy"]


def test_a_package_that_is_too_old_is_named_with_what_is_needed(broken: Path) -> None:
    facts = broken / "orjson-3.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: orjson\nVersion: 3.1\n")
    finding = findings(doctor("--json", beside=broken))["extra serve"]
    assert (finding["state"], finding["detail"]) == ("broken", "too old: orjson 3.1 (needs >=3.10)")
    assert finding["remedy"] == 'pip install --upgrade "isolatent[serve]"'


def test_it_needs_nothing_but_the_base_install() -> None:
    code = "import sys, isolatent.cli.doctor; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "fastapi", "PIL", "pydantic", "onnxruntime", "isolatent_export"} & set(loaded)
