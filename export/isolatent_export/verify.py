"""Verifying a bundle: every hash, and the golden outputs on the execution provider that would really serve them."""

from __future__ import annotations

from dataclasses import dataclass

from isolatent_export import parity
from isolatent_export.bundle import DECODER_PROGRAM, ENCODER_PROGRAM, TORCHSCRIPT, Bundle, BundleError, FileCheck
from isolatent_export.manifest import ParityRow
from isolatent_export.runtime import CudaOptions, Device, OnnxRuntime


@dataclass(frozen=True)
class Verification:
    """All findings about a bundle; it may be served only when `problems` is empty."""

    files: tuple[FileCheck, ...]
    parity: tuple[ParityRow, ...]
    problems: tuple[str, ...]


def verify(bundle: Bundle, *, device: Device = "cpu", torchscript: bool = False, pt2: bool = False) -> Verification:
    """Check files first; recompute the golden outputs only when they are what the manifest says.

    `torchscript` also runs model.ts and `pt2` the programs of torch.export: both need torch, and both run what is in
    those files, so ask for them only where the bundle's maker is trusted. Raises nothing for a bad bundle: the
    findings are the result.
    """
    files = tuple(bundle.check_files())
    problems = [f"{check.name}: {check.problem}" for check in files if check.problem]
    rows: tuple[ParityRow, ...] = ()
    if not problems:
        try:
            rows = _measure_engines(bundle, device, torchscript=torchscript, pt2=pt2)
        except BundleError as error:
            problems.append(str(error))
    problems += parity.excess(rows, bundle.manifest.tolerance)
    return Verification(files, rows, tuple(problems))


def load_verified(
    bundle: Bundle, *, device: Device = "cpu", threads: int = 0, cuda: CudaOptions = CudaOptions()
) -> OnnxRuntime:
    """The runtime of a bundle whose files are intact and whose golden outputs it reproduces.

    Raises BundleError naming the file or the output that is wrong.
    """
    bundle.require_intact()
    runtime = OnnxRuntime(bundle, device=device, threads=threads, cuda=cuda)
    rows = parity.measure(runtime, bundle.golden(), runtime.provider, runtime.sizes)
    wrong = parity.excess(rows, bundle.manifest.tolerance)
    if wrong:
        raise BundleError(f"{bundle.path}: {wrong[0]}; refused: export again, or serve on the device it was made for")
    return runtime


def _measure_engines(bundle: Bundle, device: Device, *, torchscript: bool, pt2: bool) -> tuple[ParityRow, ...]:
    golden = bundle.golden()
    runtime = OnnxRuntime(bundle, device=device)
    rows = parity.measure(runtime, golden, runtime.provider, runtime.sizes)
    if torchscript:
        rows += parity.measure(_torchscript(bundle), golden, "TorchScript")
    if pt2:
        rows += parity.measure(_programs(bundle), golden, "torch.export")
    return rows


def _torchscript(bundle: Bundle) -> parity.Engine:
    from isolatent_export.to_torchscript import TorchScriptRuntime  # torch is loaded only when asked for

    return TorchScriptRuntime(bundle.file(TORCHSCRIPT))


def _programs(bundle: Bundle) -> parity.Engine:
    from isolatent_export.to_program import ProgramRuntime

    missing = [name for name in (ENCODER_PROGRAM, DECODER_PROGRAM) if name not in bundle.manifest.files]
    if missing:
        raise BundleError(f"{bundle.path}: no {' and no '.join(missing)} in it; export the bundle again")
    return ProgramRuntime(bundle.file(ENCODER_PROGRAM), bundle.file(DECODER_PROGRAM))
