"""Folders of files, one sub-folder per class or flat: what is in them, decoded, split by class.

Hidden files are passed over, and so are the sidecars of a source; every other file is tried. Links that lead out of the
folder, links to files that are read anyway and linked folders are not followed. Parts are drawn by class from the
sorted relative paths with the split seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isolatent_export.manifest import InputSpec
from isolatent_train.config import DataSection
from isolatent_train.data.decoding import LIMITS, decode_all, one_line, report
from isolatent_train.data.files import require_folder
from isolatent_train.data.forms import FORMS
from isolatent_train.data.parts import finish, labelled, name_labels, split
from isolatent_train.data.splits import DataError, Rejected, Splits

SIDECARS = frozenset(
    f".{suffix}"
    for suffix in (
        *("md", "rst", "pdf", "html", "py", "ipynb"),
        *("json", "jsonl", "xml", "yaml", "yml", "mat"),
        *("toml", "ini", "cfg", "log", "db"),
    )
)
"""Suffixes of files that lie beside inputs of any kind and are none."""

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


@dataclass(frozen=True)
class _Found:
    files: list[str]  # relative paths with "/", sorted
    refused: list[Rejected]  # sorted by path


def load_folder(source: str, place: str, section: DataSection, spec: InputSpec, sidecars: Set[str]) -> Splits:
    """Decode every file of `SOURCE:PLACE` to `spec` and split by class; files with the suffixes `sidecars` are none.

    Raises DataError: nothing there, nothing readable, or too few.
    """
    root, form = require_folder(place, source), FORMS[spec.modality]
    what = f"data '{source}:{place}'"
    found = _find(root, sidecars, source, what)
    if section.strict and found.refused:
        raise DataError(f"{what}: {found.refused[0].path}: {found.refused[0].reason} (data.strict stops at the first)")
    if not found.files:
        first = f" ({found.refused[0].path}: {found.refused[0].reason})" if found.refused else ""
        raise DataError(f"{what}: no {form.noun} files{first}; put them there, one sub-folder per class or all in one")

    decoded = decode_all(found.files, lambda i: _read(root / found.files[i]), spec, what, strict=section.strict)
    rejected = tuple(sorted((*found.refused, *decoded.rejected), key=lambda item: item.path))
    report(rejected, len(found.files) + len(found.refused), what)

    labels, classes = None, None
    if "/" in found.files[0]:
        folders = np.array([one_line(found.files[i].split("/")[0]) for i in decoded.kept])
        (labels,), classes = name_labels(folders, what=what)
    data = labelled(decoded.inputs, labels, what, form)
    return finish(section, *split(data, section), classes=classes, rejected=rejected, spec=spec)


def _find(root: Path, sidecars: Set[str], source: str, what: str) -> _Found:
    files, refused = [], list[Rejected]()
    for path, problem in _walk(root, sidecars):
        name = path.relative_to(root).as_posix()
        if problem:
            refused.append(Rejected(one_line(name), problem))
        else:
            files.append(name)
    _require_classes(files, source, what)
    beside, within = [name for name in files if "/" not in name], [name for name in files if "/" in name]
    if beside and within:  # classes: files beside their folders belong to none
        _require_few(beside, within, what)
        refused += [Rejected(one_line(name), "lies beside the class folders; move it into one") for name in beside]
    kept, copies = _without_copies(root, within or beside)
    return _Found(kept, sorted((*refused, *copies), key=lambda item: item.path))


def _walk(root: Path, sidecars: Set[str]) -> Iterator[tuple[Path, str]]:
    """Every file and link that is not passed over, with the reason where it is not to be read."""
    inside, closed = os.path.realpath(root), list[OSError]()
    for folder, folders, names in os.walk(root, onerror=closed.append):  # does not follow linked folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in folders):
            # False where one may not look, unlike Path's: the walk does not get in either, and names the folder once.
            if os.path.islink(path):  # noqa: PTH114
                yield path, _problem(path, inside)
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() not in sidecars:
                yield path, _problem(path, inside)
    for error in closed:
        yield Path(error.filename), f"a folder that cannot be opened ({error.strerror}); check its permissions"


def _problem(path: Path, inside: str) -> str:
    """Why a file or link is not read; nothing where it is."""
    try:
        if path.is_symlink():
            return _why_not_followed(path, inside)
        return "" if path.is_file() else "not a regular file; remove it"
    except OSError as error:  # a folder whose names may be listed, but that may not be entered
        return f"cannot be looked at ({error.strerror}); check the permissions of its folder"


def _why_not_followed(link: Path, inside: str) -> str:
    target = Path(os.path.realpath(link))  # ends on a loop of links, too
    if not target.is_relative_to(inside):
        return "a link out of the folder; copy what it shows"
    return "" if target.is_file() else "a link to a folder or to nothing; copy what it should show"


def _require_classes(files: list[str], source: str, what: str) -> None:
    folders = {name.split("/")[0] for name in files if "/" in name}
    parts = sorted(name for name in folders if name.lower() in _SPLIT_NAMES)
    if len(parts) > 1 or (len(folders) == 1 and parts and parts[0].lower() == "train"):  # beside others it is a vehicle
        train = next((name for name in parts if name.lower().startswith("train")), parts[0])
        raise DataError(
            f"{what}: {', '.join(parts)} look like parts, not classes; name one of them "
            f"({source}:DIR/{train}), or merge them"
        )


def _require_few(beside: list[str], within: list[str], what: str) -> None:
    """Refuse files beside sub-folders where they are as many as those within: a flat folder may be meant."""
    if len(beside) < len(within):
        return
    folders = sorted({name.split("/")[0] for name in within})
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    raise DataError(
        f"{what}: {len(beside)} files lie in it and {len(within)} in sub-folders ({one_line(', '.join(folders[:3]))}"
        f"{more}), so whether there are classes is unclear; move the files into a class folder, or move or remove "
        "the sub-folders"
    )


def _without_copies(root: Path, files: list[str]) -> tuple[list[str], list[Rejected]]:
    """Files sorted, without links to one of them: the same input would be in several parts, or under two labels."""
    inside, links = os.path.realpath(root), {name for name in files if (root / name).is_symlink()}
    names = {str(Path(inside, name)): name for name in files if name not in links}
    copies = []
    for link in sorted(links):
        first = names.setdefault(os.path.realpath(root / link), link)
        if first != link:
            copies.append(Rejected(one_line(link), f"a link to what is read as {one_line(first)}; remove it"))
    return sorted(names.values()), copies


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMITS.item_bytes + 1)  # one more is refused, without reading all of a huge file
