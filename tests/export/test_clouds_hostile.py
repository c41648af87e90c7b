"""Files made to break parsers load or are refused, in a process that may take little memory and little time."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MUST_LOAD = {
    "draco_deg_faces.obj",
    "draco_empty_name.obj",
    "pcu_bunny_duplicates.ply",
    "trimesh_emptyIO_ply_points_ascii.ply",
    "trimesh_emptyIO_ply_points_bin.ply",
    "trimesh_nancolor.obj",
    "trimesh_negative_indices.obj",
    "trimesh_points_emptyascii.ply",
    "trimesh_points_emptyface.ply",
}
MAY_LOAD = {
    "assimp_invalid_malformed2.obj",
    "draco_eof_test.obj",
    "draco_extra_vertex.obj",
    "draco_non_manifold_wrap.obj",
    "tinyobj_issue-161-inconsistent-f.obj",
    "tinyobj_issue-295-trianguation-failure.obj",
    "tinyobj_issue-330.obj",
    "tinyobj_leading-decimal-dot-issue-201.obj",
    "trimesh_busted.STL",
    "trimesh_notenoughindices.obj",
    "trimesh_obj_with_no_face_in_chunk.obj",
    "trimesh_soup.stl",
}

READ_ALL = """
import json, resource, sys, time
import laspy, lazrs, lzf, trimesh
from pathlib import Path
import numpy as np
from isolatent_export.inputs import InputError, Limits, decode_item
from isolatent_export.manifest import PointCloudInput

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

resource.setrlimit(resource.RLIMIT_AS, (used() + 256 * 2**20, -1))
spec, outcomes = PointCloudInput(points=128), {}
for path in sys.argv[1:]:
    started = time.monotonic()
    try:
        cloud = decode_item(Path(path).read_bytes(), spec, Limits())
        outcome = "loaded" if cloud.shape == (128, 3) and np.isfinite(cloud).all() else "nonsense"
    except InputError as error:
        outcome = error.code
    outcomes[Path(path).name] = outcome if time.monotonic() - started < 5 else "slow"
print(json.dumps(outcomes))
"""


def read_all(files: list[Path]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ_ALL, *map(str, files)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout)
    return outcomes


@pytest.mark.data
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and address space limits")
def test_every_hostile_file_loads_or_is_refused_within_256_megabytes_and_5_seconds(data_dir: Path) -> None:
    files = [file for part in ("meshes", "other") for file in sorted((data_dir / "hostile" / part).iterdir())]
    outcomes = read_all(files)
    assert len(outcomes) == len(files) == 64
    assert set(outcomes.values()) <= {
        *("loaded", "undecodable", "degenerate", "non_finite", "too_many_points", "empty_input")
    }
    loaded = {name for name, outcome in outcomes.items() if outcome == "loaded"}
    assert loaded >= MUST_LOAD
    assert loaded <= MUST_LOAD | MAY_LOAD
    assert outcomes["assimp_invalid_OutOfMemory.off"] == "too_many_points"
    assert outcomes["draco_degenerate_mesh.obj"] == "degenerate"
    assert outcomes["draco_inf_nan.obj"] == outcomes["draco_float_inf_point_cloud.ply"] == "non_finite"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and address space limits")
def test_bombs_are_found_by_what_they_announce(tmp_path: Path) -> None:
    import lzf

    packed = lzf.compress(bytes(2**20))
    header = "VERSION 0.7\nFIELDS x y z n\nSIZE 4 4 4 1\nTYPE F F F U\nCOUNT 1 1 1 {}\nWIDTH 1\nHEIGHT {}\nPOINTS {}\n"
    scene: dict[str, Any] = {"accessors": [{"count": 10**12, "componentType": 5126, "type": "VEC3"}], "nodes": []}
    scene["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}}]}]
    text = json.dumps(scene).encode()
    nodes = [{"children": [place + 1, place + 1]} for place in range(10_000)] + [{"children": [0]}]
    cycle = json.dumps({"nodes": nodes, "scenes": [{"nodes": [0]}]}).encode()
    bombs = {
        "lzf.pcd": header.format(65_536, 60_000, 60_000).encode()
        + b"DATA binary_compressed\n"
        + struct.pack("<II", len(packed), 60_000 * (65_536 + 12))
        + packed,
        "count.pcd": header.format(65_536, 2_000_000, 2_000_000).encode() + b"DATA binary\n",
        "count.glb": b"glTF" + struct.pack("<III", 2, 20 + len(text), len(text)) + b"JSON" + text,
        "cycle.glb": b"glTF" + struct.pack("<III", 2, 20 + len(cycle), len(cycle)) + b"JSON" + cycle,
        "nested.glb": b"glTF" + struct.pack("<III", 2, 100_020, 100_000) + b"JSON" + b"[" * 100_000,
        "materials.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + b"".join(b"usemtl %d\nf 1 2 3\n" % i for i in range(100_000)),
        "list.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 2000000\nproperty list uint double x\n"
        b"property double y\nproperty double z\nend_header\n" + b"\xff\xff\xff\x7f" * 1000,
        "line.xyz": b"1 " * 4_000_000,
        "grid.binvox": b"#binvox 1\ndim 1000 1000 1020\ndata\n" + b"\1\xff" * 4_000_000,
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    outcomes = read_all([tmp_path / name for name in bombs])
    assert outcomes.pop("materials.obj") == "loaded"
    assert outcomes.pop("cycle.glb") == "degenerate"
    assert set(outcomes.values()) <= {"undecodable", "too_many_points"}, outcomes
