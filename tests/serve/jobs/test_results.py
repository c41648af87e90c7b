"""What is told of finished parts."""

from __future__ import annotations

import json
from pathlib import Path

from isolatent_export.bundle import file_digest
from isolatent_serve.jobs import JobFolder, finish, local, results
from jobs_core_support import job, pictures


def digests(folder: JobFolder) -> list[str]:
    return [part.sha256 for part in results.parts(folder.path, "job-" + "1" * 32)]


def test_a_job_that_is_done_tells_the_digests_of_its_listing(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 12))
    local.run(folder, 1)
    made = [file_digest(folder.part(number)) for number in range(2)]
    assert digests(folder) == made
    listing = finish(folder)
    listing["parts"][1]["sha256"] = "0" * 64
    (folder.path / "_listing.json").write_text(json.dumps(listing))
    assert digests(folder) == [made[0], "0" * 64]
