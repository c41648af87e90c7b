"""Export fails as a whole: no half bundle, no overwritten folder, no outputs outside tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolatent_export.bundle import BundleError
from isolatent_export.manifest import ImageInput, Tolerance
from support import export_untrained

SPEC = ImageInput(height=8, width=8, channels=1)


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="choose another --out"):
        export_untrained(tmp_path / "mine", SPEC, latent=2)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_outputs_outside_tolerance_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not exported, outputs differ from torch"):
        export_untrained(tmp_path / "tiny", SPEC, latent=2, tolerance=Tolerance(mean=0.0))
    assert list(tmp_path.iterdir()) == []
