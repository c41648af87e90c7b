"""The checks of `isolatent doctor`. Each looks at one thing and needs no package; what may crash runs in a process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any, Literal

from isolatent import _machine

State = Literal["ok", "missing", "broken"]

_EXTRAS = ("serve", "jobs", "ray", "export", "train", "clouds", "shapes", "hf", "otel")
_SECONDS = 120  # for a first import of a large package from a slow disk
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """What was found about one thing. `missing` is not installed; `broken` is installed and does not work."""

    name: str
    state: State
    detail: str
    remedy: str | None = None
    """The command that mends it."""


def all_findings() -> Iterator[Finding]:
    """Everything, the general first."""
    for check in (_python, _packages, _onnxruntime, _torch, _cores, _memory, _open3d, _java, _disk):
        yield from check()


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    """The extras: which are complete, with the versions of their packages."""
    needs = _needs()
    yield Finding("isolatent", "ok", installed("isolatent") or "not installed as a package, run from its sources")
    for extra in [extra for extra in _EXTRAS if extra in needs]:
        found = {name: installed(name) for name in needs[extra]}
        missing = [name for name, its in found.items() if not its]
        old = [
            f"{name} {its} (needs {needs[extra][name]})"
            for name, its in found.items()
            if _is_old(its, needs[extra][name])
        ]
        install = f'pip install --upgrade "isolatent[{extra}]"'
        if old:
            yield Finding(f"extra {extra}", "broken", f"too old: {', '.join(old)}", install)
        elif missing:
            yield Finding(f"extra {extra}", "missing", f"not installed: {', '.join(missing)}", install)
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{name} {its}" for name, its in found.items()))


def _onnxruntime() -> Iterator[Finding]:
    """Which execution providers the package lists, and which start."""
    packages = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if not packages:
        yield Finding("onnxruntime", "missing", "not installed", 'pip install "isolatent[serve]"')
        return
    names = " and ".join(f"{name} {_version(name)}" for name in packages)
    if len(packages) == 2:
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime  # or onnxruntime-gpu"
        yield Finding("onnxruntime", "broken", f"{names} are both installed and overwrite each other's files", remedy)
        return
    said = _ask(_RUN_ONNXRUNTIME)
    if isinstance(said, str):
        yield Finding(
            "onnxruntime", "broken", f"{names} does not run: {said}", f"pip install --force-reinstall {packages[0]}"
        )
        return
    yield Finding(
        "onnxruntime", "ok", f"{names}, lists {', '.join(said['lists'])}; a session runs on {said['runs'][0]}"
    )
    yield _cuda(names, said)


def _cuda(names: str, said: dict[str, Any]) -> Finding:
    provider = "CUDAExecutionProvider"
    if provider not in said["lists"]:
        remedy = "with an NVIDIA GPU: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
        return Finding("cuda", "missing", f"{names} is for CPUs; --device cuda refuses, auto takes the CPU", remedy)
    if said["runs"][0] == provider:
        return Finding("cuda", "ok", f"{names} runs on {provider}")
    why = "; ".join(said["libraries"][:1]) or "is there a GPU, and its driver?"
    remedy = (
        "pip install 'onnxruntime-gpu[cuda,cudnn]', or without a GPU: "
        "pip uninstall -y onnxruntime-gpu && pip install onnxruntime"
    )
    return Finding("cuda", "broken", f"{names} lists {provider}, which does not start ({why})", remedy)


def _torch() -> Iterator[Finding]:
    if not _version("torch"):
        yield Finding(
            "torch", "missing", "not installed; only training and exporting need it", 'pip install "isolatent[train]"'
        )
        return
    said = _ask(_RUN_TORCH)
    if isinstance(said, str):
        yield Finding(
            "torch", "broken", f"torch {_version('torch')} does not run: {said}", "pip install --force-reinstall torch"
        )
        return
    devices = ", ".join(said["devices"]) or "no GPU that it can use"
    yield Finding("torch", "ok", f"{said['version']}, built for {said['cuda'] or 'CPUs'}, {devices}")


def _cores() -> Iterator[Finding]:
    quota = _machine.quota()
    limit = f"a cgroup grants the time of {quota:g}" if quota else "no cgroup limit"
    yield Finding("cores", "ok", f"{_machine.cores()} used; {_machine.affinity()} by affinity, {limit}")


def _memory() -> Iterator[Finding]:
    limit, total = _machine.memory_limit(), _machine.memory()
    least = min(number for number in (limit, total) if number is not None) if limit or total else None
    found = f"{_size(total)} in the machine, {_size(limit) if limit else 'no'} cgroup limit"
    if least is not None and least < _GIB:
        yield Finding("memory", "broken", f"{found}; a service takes 1 GiB or more", "give this container more memory")
    else:
        yield Finding("memory", "ok", found)


def _open3d() -> Iterator[Finding]:
    """The system libraries that Open3D loads, which pip cannot install."""
    needed = _version("open3d") is not None
    for library, package in (("libGL.so.1", "libgl1"), ("libusb-1.0.so.0", "libusb-1.0-0")):
        why = _ask(f"import ctypes\nctypes.CDLL({library!r})\nprint('null')")
        if not isinstance(why, str):
            yield Finding(library, "ok", "loads; Open3D needs it")
        elif needed:
            yield Finding(
                library, "broken", f"Open3D is installed and needs it: {why}", f"apt-get install -y {package}"
            )
        else:
            yield Finding(library, "missing", "only the extra shapes needs it", f"apt-get install -y {package}")


def _java() -> Iterator[Finding]:
    """Java 17 or newer, which TorchServe runs on."""
    install, needed = "apt-get install -y openjdk-17-jre-headless", _version("torchserve") is not None
    program = shutil.which("java")
    said = _output([program, "-version"]) if program else ""
    number = re.search(r'version "(?:1\.)?(\d+)', said)
    if number and int(number[1]) >= 17:
        yield Finding("java", "ok", f"{said.splitlines()[0]}; TorchServe needs it")
    elif needed:
        yield Finding("java", "broken", "TorchServe is installed and needs Java 17 or newer", install)
    else:
        yield Finding("java", "missing", "Java 17 or newer; only TorchServe needs it", install)


def _disk() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < _GIB:
        yield Finding("disk", "broken", f"{_size(free)} free in {folder}", f"free some in {folder}, or set TMPDIR")
    else:
        yield Finding("disk", "ok", f"{_size(free)} free in {folder}")


def _needs() -> dict[str, dict[str, str]]:
    """Extra -> package -> versions, as the installed distribution states them."""
    try:
        lines, extras = requires("isolatent") or [], metadata("isolatent").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return {}
    needs: dict[str, dict[str, str]] = {extra: {} for extra in extras}
    for line in lines:
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        if name and extra and not name[0].startswith("isolatent"):
            needs[extra[1]][name[0]] = re.sub(r"^\[.*\]", "", requirement[name.end() :].strip()).strip()
    return needs


def installed(name: str) -> str | None:
    """Version of a package, or of the one that stands in for it."""
    return _version(name) or (_version("onnxruntime-gpu") if name == "onnxruntime" else None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_old(found: str | None, wanted: str) -> bool:
    least = re.search(r"[>=]=([\d.]+)", wanted)
    return bool(found and least and _numbers(found) < _numbers(least[1]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text)[0]))


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / _GIB:.1f} GiB"


def _ask(program: str) -> Any:
    """What a program prints last, as JSON; or, as a string, why it failed."""
    try:
        command = [sys.executable, "-W", "ignore", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {_SECONDS} s"
    if done.returncode < 0:
        return f"the process was ended by signal {-done.returncode}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
    return json.loads(done.stdout.splitlines()[-1])


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


# A graph of one node, Relu of one number: whether an execution provider starts shows only when a session is made.
_RUN_ONNXRUNTIME = """
import io, json, contextlib
import numpy, onnxruntime
graph = bytes.fromhex(
    "08083a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
said, lists = io.StringIO(), onnxruntime.get_available_providers()
if "CUDAExecutionProvider" in lists and hasattr(onnxruntime, "preload_dlls"):
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in lists]
session = onnxruntime.InferenceSession(graph, providers=wanted)
assert session.run(None, {"x": numpy.array([-1], numpy.float32)})[0][0] == 0
libraries = said.getvalue().splitlines()
print(json.dumps({"lists": lists, "runs": session.get_providers(), "libraries": libraries}))
"""

_RUN_TORCH = """
import json, torch
assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
devices = [torch.cuda.get_device_name(place) for place in range(count)]
cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else None
print(json.dumps({"version": torch.__version__, "cuda": cuda, "devices": devices}))
"""
