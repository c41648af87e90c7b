"""Export fails as a whole: no half bundle, no overwritten folder, no outputs outside tolerance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from disk_support import small_disk
from isolatent_export.bundle import BundleError
from isolatent_export.manifest import ImageInput, Tolerance
from isolatent_export.verify import verify
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
        export_untrained(tmp_path / "tiny", SPEC, latent=2, tolerance=Tolerance(mean=1e-12))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk(), pytest.raises(BundleError, match=r"tiny cannot be written \(File too large\); make room there"):
        export_untrained(tmp_path / "tiny", SPEC, latent=2)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "current").symlink_to("real")
    with pytest.raises(BundleError, match=r"current is a symbolic link to .*real; name that folder"):
        export_untrained(tmp_path / "current", SPEC, latent=2)


def test_one_golden_input_is_enough_and_none_is_not(tmp_path: Path) -> None:
    golden = np.full((1, *SPEC.shape), 7, np.uint8)
    assert verify(export_untrained(tmp_path / "tiny", SPEC, latent=2, golden_inputs=golden)).problems == ()
    with pytest.raises(BundleError, match="no golden inputs; give at least one"):
        export_untrained(tmp_path / "none", SPEC, latent=2, golden_inputs=golden[:0])
