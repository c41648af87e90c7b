"""Reading a bundle directory: manifest, hashes, golden samples. Safe on bundles from strangers: no pickle, no code."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from isolatent_export.manifest import SCHEMA_VERSION, FileFact, Manifest

MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"
TORCHSCRIPT = "model.ts"
ENCODER_PROGRAM = "encoder.pt2"
DECODER_PROGRAM = "decoder.pt2"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
GOLDEN = "golden.safetensors"
CARD = "README.md"
KINDS = (".onnx", ".safetensors", ".json", ".md", ".png", ".ts", ".pt2")
"""Suffixes of the files that a bundle may hold."""
PROGRAMS = (".ts", ".pt2")
"""Of these, the ones that are code to whom loads them. Nothing here loads them unless it is told to."""
MANIFEST_BYTES = 2**24
REQUIRED = (ENCODER, DECODER, TORCHSCRIPT, WEIGHTS, CONFIG, GOLDEN, CARD)

INPUT_DTYPES = {"image": "uint8", "point_cloud": "float32"}
"""Modality -> dtype of the items that the encoder takes."""

Array = NDArray[np.generic]


class BundleError(Exception):
    """A bundle that cannot be trusted or read. The message names the file and the next step."""


@dataclass(frozen=True)
class FileCheck:
    """Outcome of checking one file: `problem` is None when the file is what the manifest says."""

    name: str
    problem: str | None


@dataclass(frozen=True)
class Golden:
    """Real validation inputs with the training framework's outputs for them.

    Shapes: input (N, ...) as in the input spec, mean and log_variance (N, d), reconstruction (N, ...) of the means as
    in the manifest.
    """

    input: Array
    mean: Array
    log_variance: Array
    reconstruction: Array


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest of the bundle at `path`; contents are checked by `check`.

        Raises BundleError when there is no readable manifest of a known schema, or a required file is not listed.
        """
        directory = Path(path)
        file = directory / MANIFEST
        try:
            content = _manifest(directory)
        except OSError as error:
            reason = error.strerror or error
            raise BundleError(f"{directory}: cannot be read ({reason}); check its name and who may read it") from None
        try:
            facts = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file}: not valid JSON ({error}); export the bundle again") from None
        version = facts.get("schema_version") if isinstance(facts, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(f"{file}: schema version {version!r}, {_who_reads_it(facts)}")
        try:
            manifest = Manifest.model_validate(facts)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BundleError(f"{file}: {where}: {first['msg']}; export the bundle again") from None
        missing = [name for name in REQUIRED if name not in manifest.files]
        if missing:
            raise BundleError(f"{file}: {', '.join(missing)} not listed; export the bundle again")
        unsafe = [name for name in manifest.files if Path(name).name != name or name.startswith(".")]
        if unsafe:
            raise BundleError(f"{file}: file name {unsafe[0]!r} leaves the bundle; do not use this bundle")
        foreign = [name for name in manifest.files if not name.endswith(KINDS)]
        if foreign:
            raise BundleError(f"{file}: {foreign[0]!r} is no kind of file that bundles have; do not use this bundle")
        return cls(directory, manifest)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files."""
        return self.path / name

    def check_files(self) -> Iterator[FileCheck]:
        """Compare every listed file with its recorded size and sha256, and name files that are not listed.

        The manifest has no hash; its input specification is compared with the configuration that the weights had.
        """
        for name, fact in sorted(self.manifest.files.items()):
            problem = _file_problem(self.path / name, fact)
            yield FileCheck(name, problem)
            if name == CONFIG and not problem and (contradiction := _contradiction(self.path / CONFIG, self.manifest)):
                yield FileCheck(MANIFEST, contradiction)
        listed = {MANIFEST, *self.manifest.files}
        try:
            entries = sorted(self.path.iterdir())
        except OSError as error:
            yield FileCheck(".", f"cannot be listed ({error.strerror or error})")
            return
        for entry in entries:
            if entry.name not in listed:
                yield FileCheck(entry.name, "not listed in the manifest")

    def require_intact(self) -> None:
        """Raise BundleError naming the first file that is not what the manifest says."""
        for check in self.check_files():
            if check.problem:
                raise BundleError(f"{self.path / check.name}: {check.problem}; copy or export the bundle again")

    def golden(self) -> Golden:
        """Load the golden samples.

        Raises BundleError when a tensor is missing, has the wrong shape or dtype, or numbers that are not finite.
        """
        file = self.path / GOLDEN
        try:
            tensors = load_file(file)
            golden = Golden(*(tensors[name] for name in ("input", "mean", "log_variance", "reconstruction")))
        except (OSError, SafetensorError, KeyError) as error:
            raise BundleError(f"{file}: unreadable golden samples ({error}); export the bundle again") from None
        count, size, shape = len(golden.input), self.manifest.latent.size, self.manifest.input.shape
        rebuilt = self.manifest.reconstruction_shape
        expected = {"input": shape, "mean": (size,), "log_variance": (size,), "reconstruction": rebuilt}
        for name, item_shape in expected.items():
            got = getattr(golden, name)
            if count == 0 or got.shape != (count, *item_shape):
                raise BundleError(
                    f"{file}: {name} has shape {got.shape}, expected {(count, *item_shape)}; export again"
                )
            dtype = INPUT_DTYPES[self.manifest.modality] if name == "input" else "float32"
            if got.dtype != dtype:
                raise BundleError(f"{file}: {name} is {got.dtype}, expected {dtype}; export again")
            if not np.isfinite(got).all():
                raise BundleError(f"{file}: {name} has numbers that are not finite; export again")
        return golden


def is_bundle(folder: Path) -> bool:
    """Whether `folder` looks like a bundle, of whatever schema: one that may be replaced by another."""
    return (folder / MANIFEST).is_file()


def _manifest(directory: Path) -> bytes:
    """The content of the manifest. Raises BundleError, and OSError."""
    file = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(f"{directory}: no such directory; make a bundle with: isolatent export RUN --out {directory}")
    if file.is_symlink():
        raise BundleError(f"{file}: a symbolic link; copy the file itself into the bundle")
    if not file.is_file():
        raise BundleError(f"{directory}: not a bundle, {MANIFEST} is missing")
    if file.stat().st_size > MANIFEST_BYTES:
        raise BundleError(f"{file}: {file.stat().st_size} bytes are no manifest; do not use this bundle")
    return file.read_bytes()


def _contradiction(config: Path, manifest: Manifest) -> str | None:
    """Where the manifest's input specification is not what the section `data` of the configuration says."""
    try:
        facts = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # nothing that is served depends on the configuration
    data = facts.get("data") if isinstance(facts, dict) else None
    if not isinstance(data, dict):
        return None
    size = data.get("size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
    said = data | {"height": height, "width": width}
    for name, value in manifest.input.model_dump(exclude={"modality"}).items():
        if said.get(name) not in (None, value):  # None: it was the data's own
            return f"input.{name} is {value!r}, {CONFIG} says {said[name]!r}"
    return None


def _who_reads_it(facts: Any) -> str:
    """Which release to install for a manifest of another schema. The facts come from anybody."""
    ours = f"this isolatent reads {SCHEMA_VERSION}"
    tools = facts.get("tools") if isinstance(facts, dict) else None
    writer = tools.get("isolatent") if isinstance(tools, dict) else None
    if isinstance(writer, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+]{0,30}", writer):
        return f'{ours}; isolatent {writer} wrote it: pip install -U "isolatent>={writer}", or export it again'
    return f"{ours}; install the isolatent release that wrote it, or export it again"


def _file_problem(path: Path, fact: FileFact) -> str | None:
    try:
        return _difference(path, fact)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _difference(path: Path, fact: FileFact) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "missing" if not path.exists() else "not a plain file"
    size = path.stat().st_size
    if size != fact.bytes:
        return f"{size} bytes, the manifest says {fact.bytes}"
    if not path.name.endswith(PROGRAMS) and (found := _disguised(path)):
        return f"not what its name says, but {found}"
    digest = file_digest(path)
    return None if digest == fact.sha256 else f"sha256 {digest[:12]}…, the manifest says {fact.sha256[:12]}…"


def _disguised(path: Path) -> str | None:
    """What a file really is that has the name of one of plain data: a pickle, or an archive that may hold one."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    return "an archive" if head == b"PK\x03\x04" else None


def file_digest(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
