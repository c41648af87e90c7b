"""Verifying a bundle: every hash, and the golden outputs on the execution provider that would really serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from isolatent_export import parity
from isolatent_export.bundle import (
    DECODER,
    DECODER_PROGRAM,
    ENCODER,
    ENCODER_PROGRAM,
    TORCHSCRIPT,
    Bundle,
    BundleError,
    FileCheck,
    Golden,
)
from isolatent_export.device import DeviceError
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
    findings are the result. Raises DeviceError when `device` is not to be had, and ModuleNotFoundError without torch.
    """
    files = tuple(bundle.check_files())
    problems = [f"{check.name}: {check.problem}" for check in files if check.problem]
    if problems:
        return Verification(files, (), tuple(problems))
    try:
        golden = bundle.golden()
    except BundleError as error:
        return Verification(files, (), (str(error),))

    engines: list[Callable[[], tuple[ParityRow, ...]]] = [lambda: _onnx(bundle, golden, device)[1]]
    engines += [lambda: _torchscript(bundle, golden)] if torchscript else []
    engines += [lambda: _programs(bundle, golden)] if pt2 else []
    rows: list[ParityRow] = []
    for engine in engines:  # one that does not run says nothing of the others
        try:
            rows += engine()
        except DeviceError:
            raise
        except BundleError as error:
            problems.append(str(error))
    problems += parity.excess(rows, bundle.manifest.tolerance)
    return Verification(files, tuple(rows), tuple(problems))


def load_verified(
    bundle: Bundle, *, device: Device = "cpu", threads: int = 0, cuda: CudaOptions = CudaOptions()
) -> OnnxRuntime:
    """The runtime of a bundle whose files are intact and whose golden outputs it reproduces.

    Raises BundleError naming the file or the output that is wrong, or DeviceError.
    """
    bundle.require_intact()
    runtime, rows = _onnx(bundle, bundle.golden(), device, threads, cuda)
    wrong = parity.excess(rows, bundle.manifest.tolerance)
    if wrong:
        raise BundleError(f"{bundle.path}: {wrong[0]}; refused: export again, or serve on the device it was made for")
    return runtime


def _onnx(
    bundle: Bundle, golden: Golden, device: Device, threads: int = 0, cuda: CudaOptions = CudaOptions()
) -> tuple[OnnxRuntime, tuple[ParityRow, ...]]:
    with _running(f"{bundle.file(ENCODER)} with {DECODER}"):
        runtime = OnnxRuntime(bundle, device=device, threads=threads, cuda=cuda)
        return runtime, parity.measure(runtime, golden, runtime.provider, runtime.sizes)


def _torchscript(bundle: Bundle, golden: Golden) -> tuple[ParityRow, ...]:
    from isolatent_export.to_torchscript import TorchScriptRuntime  # torch is loaded only when asked for

    file = bundle.file(TORCHSCRIPT)
    with _running(str(file)):
        return parity.measure(TorchScriptRuntime(file), golden, "TorchScript")


def _programs(bundle: Bundle, golden: Golden) -> tuple[ParityRow, ...]:
    from isolatent_export.to_program import ProgramRuntime

    missing = [name for name in (ENCODER_PROGRAM, DECODER_PROGRAM) if name not in bundle.manifest.files]
    if missing:
        raise BundleError(f"{bundle.path}: no {' and no '.join(missing)} in it; export the bundle again")
    encoder, decoder = bundle.file(ENCODER_PROGRAM), bundle.file(DECODER_PROGRAM)
    with _running(f"{encoder} with {DECODER_PROGRAM}"):
        return parity.measure(ProgramRuntime(encoder, decoder), golden, "torch.export")


@contextmanager
def _running(what: str) -> Iterator[None]:
    """What an engine raises in the block as BundleError: each has exceptions of its own, with no common base."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(f"{what} does not run ({reason}); export the bundle again") from None
