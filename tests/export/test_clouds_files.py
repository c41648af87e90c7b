"""Files of every format load, known by their content: written here in many dialects, and real ones of many programs."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isolatent_export.inputs import InputError, Limits
from isolatent_export.inputs.geometry import Geometry, describe

Array = np.ndarray[Any, Any]

POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5], [5, 5, 5]])
POLYGONS = [(0, 1, 2, 3), (0, 1, 4)]
TRIANGLES = [[0, 1, 2], [0, 2, 3], [0, 1, 4]]

ROWS = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in POINTS)
FACES = "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in POLYGONS)
OBJ = "".join(f"v {row}\n" for row in ROWS.splitlines()) + "f 1 2 3 4\nf 1 2 5\n"


def ply(form: str, line_end: str = "\n", extra: str = "") -> bytes:
    header = ["ply", f"format {form} 1.0", "comment café", "element vertex 5", "property double x", "property double y"]
    header += [
        "property double z",
        "element face 2",
        f"{extra}property list uchar int vertex_indices",
        "end_header",
        "",
    ]
    opening = line_end.join(header).encode("latin-1")
    if form == "ascii":
        return opening + (ROWS + FACES).replace("\n", line_end).encode()
    order = "<" if form == "binary_little_endian" else ">"
    faces = [struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in POLYGONS]
    return opening + POINTS.astype(f"{order}f8").tobytes() + b"".join(faces)


def pcd(form: str, points: Array, version: str = "0.7") -> bytes:
    record = np.zeros(len(points), [("pad", "u1", 2), ("x", "<f4"), ("y", "<f4"), ("i", "<u2"), ("z", "<f8")])
    for axis, name in enumerate("xyz"):
        record[name] = points[:, axis]
    header = f"# .PCD v{version}\nVERSION {version}\nFIELDS _ x y intensity z\nSIZE 1 4 4 2 8\nTYPE U F F U F\n"
    header += f"COUNT 2 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA {form}\n"
    if form == "ascii":
        return (header + "".join(f"0 0 {x:g} {y:g} 7 {z:g}\n" for x, y, z in points)).encode()
    if form == "binary":
        return header.encode() + record.tobytes()
    import lzf

    columns = b"".join(np.ascontiguousarray(record[name]).tobytes() for name in record.dtype.names or ())
    packed = lzf.compress(columns) or b""
    return header.encode() + struct.pack("<II", len(packed), len(columns)) + packed


def glb(nodes: list[dict[str, Any]], indices: list[int], mode: int = 4) -> bytes:
    vertices = POINTS.astype("<f4").tobytes()
    content = vertices + np.array(indices, "<u2").tobytes()
    content += bytes(-len(content) % 4)
    scene = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 5, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": len(indices), "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 60},
            {"buffer": 0, "byteOffset": 60, "byteLength": 2 * len(indices)},
        ],
        "buffers": [{"byteLength": len(content)}],
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


MESHES = {
    "ply ascii": ply("ascii"),
    "ply ascii, CR LF": ply("ascii", "\r\n"),
    "ply ascii, CR": ply("ascii", "\r"),
    "ply little endian": ply("binary_little_endian"),
    "ply little endian, CR LF": ply("binary_little_endian", "\r\n"),
    "ply little endian, CR": ply("binary_little_endian", "\r"),
    "ply big endian": ply("binary_big_endian"),
    "ply, X Y Z": re.sub(rb"(?<=double )[xyz]", lambda axis: axis[0].upper(), ply("ascii")),
    "ply with an empty element": ply("ascii").replace(
        b"element face", b"element none 0\nproperty bool b\nelement face"
    ),
    "off": f"OFF\n5 2 0\n{ROWS}{FACES}".encode(),
    "off, counts inline": f"OFF5 2 0\n{ROWS}{FACES}".encode(),
    "off, comments": f"# a\n\n OFF # b\n\n5 2 0 # c\n# d\n{ROWS}\n{FACES}".encode(),
    "off, CR": f"# a\nOFF\n5 2 0\n{ROWS}{FACES}".replace("\n", "\r").encode(),
    "coff": ("COFF\n5 2 0\n" + ROWS.replace("\n", " 255 0 0 1\n") + FACES.replace("\n", " 0.5 0.5 0.5\n")).encode(),
    "obj": OBJ.encode(),
    "obj in UTF-16": OBJ.encode("utf-16"),
    "obj with a mark": OBJ.encode("utf-8-sig"),
    "obj, relative": OBJ.replace("f 1 2 3 4\nf 1 2 5", "f -5 -4 -3 -2\nf -5// -4// -1//").encode(),
    "obj, tabs": OBJ.replace(" ", "\t").encode(),
    "obj, tabs and spaces": re.sub("^f ", "f\t", OBJ, flags=re.MULTILINE).encode(),
    "obj with comments": OBJ.replace("\n", " # c\n").encode(),
    "obj, CR": OBJ.replace("\n", "\r").encode(),
    "obj, continued": OBJ.replace("f 1 2 3 4", "f 1 2 \\\n 3 4").encode(),
    "obj with materials": ("mtllib /etc/passwd\n" + OBJ.replace("f 1 2 5", "usemtl b\ng c\nf 1 2 5")).encode(),
    "glb": glb([{"mesh": 0}], [0, 1, 2, 0, 2, 3, 0, 1, 4]),
}


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_is_the_same_in_every_dialect(name: str) -> None:
    found = describe(MESHES[name], Limits())
    assert found.triangles is not None
    corners = found.points[found.triangles]
    assert sorted(map(sorted, corners.tolist())) == sorted(map(sorted, POINTS[TRIANGLES].tolist()))


def table(header: str) -> str:
    return f"{header}\n" + "".join(f"7,{z:g},{x:g},{y:g}\n" for x, y, z in POINTS)


CLOUDS = {
    "xyz": ROWS,
    "xyz, tabs and more columns": ROWS.replace(" ", "\t").replace("\n", "\t255\t0\t0\n"),
    "xyz with comments": f"# made by hand\n// x y z\n\n{ROWS}",
    "xyz without a last line end": ROWS.strip(),
    "xyz, CR LF": ROWS.replace("\n", "\r\n"),
    "xyz, CR": ROWS.replace("\n", "\r"),
    "pts": "5\n" + ROWS.replace("\n", " -1000 10 20 30\n"),
    "csv": ROWS.replace(" ", ","),
    "csv with a header": "x, y, z\n" + ROWS.replace(" ", ", "),
    "csv with named columns": 'id;Z;x;"Y"\n' + "".join(f"a;{z:g};{x:g};{y:g}\n" for x, y, z in POINTS),
    "csv with an index": ",x,y,z\n" + "".join(f"0,{row}\n" for row in ROWS.replace(" ", ",").splitlines()),
    "csv with names that begin so": table("fid,Z_utm,X_utm,Y_utm"),
    "csv with units": table("t,z [m],x [m],y [m]"),
    "csv of a surveyor": table("id,Elevation,Easting,Northing"),
    "xyz with units": table("t z [m] x [m] y [m]").replace(",", " "),
    "xyz with a title and more columns": "found in a field\n" + ROWS.replace("\n", " 255 0 0\n"),
    "csv with other names": "a,b,c\n" + ROWS.replace(" ", ","),
    "off without faces": f"OFF\n5 0 0\n{ROWS}",
    "obj without faces": OBJ.split("f ")[0],
}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_is_the_same_in_every_dialect(name: str) -> None:
    found = describe(CLOUDS[name].encode(), Limits())
    assert found.triangles is None
    assert np.array_equal(found.points, POINTS)


def test_relative_places_of_an_obj_file_count_back_from_the_line_they_stand_in() -> None:
    one = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf -3/-3/ -2/-2/ -1/-1/\n"
    found = describe((one + one.replace("v 0 0 0", "v 5 5 5")).encode(), Limits())
    assert found.triangles is not None
    corners = found.points[found.triangles].tolist()
    assert [sorted(face) for face in corners] == [
        [[0, 0, 0], [0, 1, 0], [1, 0, 0]],
        [[0, 1, 0], [1, 0, 0], [5, 5, 5]],
    ]


def test_a_ply_header_may_have_comments_in_any_letters() -> None:
    plain = ply("ascii")
    assert np.array_equal(describe(plain.replace(b"caf", "Å \x0b\x1c 點".encode()), Limits()).points, POINTS)


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian"])
def test_strips_of_a_ply_file_are_triangles(form: str) -> None:
    strips = [(0, 1, 2, 3, -1, 0, 1, 4), (0, 2, 3), (4,)]
    rows = "".join(f"{len(strip)} {' '.join(map(str, strip))}\n" for strip in strips).encode()
    if form != "ascii":
        rows = b"".join(struct.pack(f">B{len(strip)}i", len(strip), *strip) for strip in strips)
    head, body = ply(form).replace(b"face 2", b"tristrips 3").split(b"end_header\n")
    points = body[: len(ROWS) if form == "ascii" else POINTS.nbytes]
    found = describe(head + b"end_header\n" + points + rows, Limits())
    assert found.triangles is not None
    assert found.triangles.tolist() == [[0, 1, 2], [1, 2, 3], [0, 1, 4], [0, 2, 3]]


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_a_pcd_file_gives_the_points_that_were_measured(form: str) -> None:
    points = np.repeat(POINTS, 20, axis=0)  # lzf packs nothing that does not become smaller
    points[[3, 7], [0, 2]] = np.nan
    found = describe(pcd(form, points, version=".5"), Limits())
    assert np.array_equal(found.points, np.delete(points, [3, 7], axis=0))


def test_stl_of_both_kinds_gives_three_vertices_per_triangle() -> None:
    corners = POINTS[TRIANGLES].astype("<f4")
    binary = np.zeros(3, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    binary["corners"] = corners
    rows = "".join(f"facet normal 0 0 1\nouter loop\n{text}endloop\nendfacet\n" for text in map(_vertices, corners))
    for data in (
        b"solid but binary".ljust(80, b"\0") + struct.pack("<I", 3) + binary.tobytes(),
        bytes(80) + struct.pack("<I", 3) + binary.tobytes() + b"bytes of the program",
        f"solid x\n{rows}endsolid x\n".encode(),
        f"SOLID x\n{rows.upper()}ENDSOLID x\n".encode(),
    ):
        found = describe(data, Limits())
        assert found.triangles is not None
        assert np.array_equal(found.points[found.triangles], corners)


def test_other_content_is_not_taken_for_a_binary_stl_file_with_bytes_behind_it() -> None:
    content = bytes(80) + struct.pack("<I", 10) + np.random.default_rng(0).bytes(700)
    with pytest.raises(InputError, match="not a cloud or mesh of a known format"):
        describe(content, Limits())


def _vertices(corners: Array) -> str:
    return "".join(f"  vertex {x:g} {y:g} {z:g}\n" for x, y, z in corners)


def test_binvox_gives_the_centres_of_filled_voxels() -> None:
    header = b"#binvox 1\n# comment\ndim 2 2 2\ntranslate 10 20 30 # why\nscale 4\ndata\n"
    found = describe(header + bytes([0, 1, 1, 1, 0, 4, 1, 2]), Limits())  # x slowest, then z, then y
    assert found.points.tolist() == [[11, 23, 31], [13, 21, 33], [13, 23, 33]]


def test_las_points_keep_their_millimetres() -> None:
    import laspy

    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 0.001), np.array([665_000.0, 5_648_000.0, 0.0])
    las = laspy.LasData(header)
    far = np.array([665_171.123, 5_648_340.456, 233.789])
    las.xyz = POINTS + far
    for compress in (False, True):
        stream = io.BytesIO()
        las.write(stream, do_compress=compress)
        found = describe(stream.getvalue(), Limits())
        assert np.abs(found.points - POINTS - far).max() < 1e-6


def test_meshes_of_a_glb_scene_stand_where_the_scene_puts_them() -> None:
    nodes = [
        {"children": [1, 2], "translation": [100, 0, 0], "rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)]},
        {"mesh": 0, "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 7, 0, 0, 1]},
        {"mesh": 0},  # in no scene
    ]
    found = describe(glb(nodes, [0, 1, 2]), Limits())
    turned = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    expected = [place @ turned.T + np.array([100, 0, 0]) for place in (2 * POINTS, POINTS + np.array([7, 0, 0]))]
    assert found.triangles is not None
    assert len(found.triangles) == 2
    assert np.allclose(sorted(found.points.tolist()), sorted(np.concatenate(expected).tolist()), atol=1e-5)


def test_without_scenes_the_nodes_of_a_glb_file_stand_below_their_parents() -> None:
    nodes = [{"children": [1], "translation": [100, 0, 0]}, {"mesh": 0}]
    found = describe(glb(nodes, [0, 1, 2]).replace(b'"scenes"', b'"SCENES"'), Limits())
    assert np.allclose(found.points, POINTS + np.array([100, 0, 0]))


@pytest.mark.parametrize(("mode", "triangles"), [(4, 1), (5, 3), (6, 3), (0, 0)])
def test_strips_fans_and_points_of_glb_are_understood(mode: int, triangles: int) -> None:
    found = describe(glb([{"mesh": 0}], [0, 1, 2, 3, 4], mode), Limits())
    assert (0 if found.triangles is None else len(found.triangles)) == triangles


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (ply("ascii").replace(b"vertex 5", b"vertex 99999999999"), "too_many_points", "limit"),
        (ply("binary_little_endian")[:-3], "undecodable", "cut"),
        (ply("ascii").replace(b"0 1 4", b"0 1 9"), "undecodable", "a vertex that is not there"),
        (ply("ascii").replace(b"vertex 5", b"vertex 50"), "undecodable", "announced"),
        (b"OFF\n1000000 1000000 0\n" + ROWS.encode(), "undecodable", "announced"),
        (b"OFF BINARY\n" + bytes(100), "undecodable", "broken OFF file"),
        (pcd("binary", POINTS)[:-1], "undecodable", "announced"),
        (pcd("binary", POINTS).replace(b"POINTS 5", b"POINTS 9999999"), "too_many_points", "limit"),
        (pcd("binary", POINTS).replace(b"_ x y", b"_ a y"), "undecodable", "do not name x, y and z"),
        (b"9\n" + ROWS.encode(), "undecodable", "9 points announced, 5 there"),
        (b"1 2 3\n4 5 six\n", "undecodable", "broken text file"),
        (b"1.5,2.5,\n" + ROWS.replace(" ", ",").encode(), "undecodable", "neither three plain numbers nor names"),
        (b"1.0D0 2.0D0 3\n" + ROWS.encode(), "undecodable", "neither three plain numbers nor names"),
        (b"1,5;2,5;3,5\n" * 3, "undecodable", "neither three plain numbers nor names"),
        (b'"1","2","3"\n' * 3, "undecodable", "neither three plain numbers nor names"),
        (b'x,y,z\n"1","2","3"\n', "undecodable", "no plain numbers under x, y and z"),
        (b"t,a,b,c\n0,1,2,3\n", "undecodable", "name the columns x, y and z"),
        (b"x1,y1,z1,x2,y2,z2\n1,2,3,4,5,6\n", "undecodable", "name the columns x, y and z"),
        (OBJ.replace("f 1 2 5", "f 0 1 2").encode(), "undecodable", "a face names vertex 0; the first is 1"),
        (OBJ.replace("f 1 2 5", "f -6 1 2").encode(), "undecodable", "counts 6 lines back where 5 have come"),
        (b"Dear Sir or Madam,\n1 2 3\n" * 3, "undecodable", "broken text file"),
        (b"once upon a time\nthere was\n", "undecodable", "not a cloud or mesh of a known format"),
        (POINTS.astype("<f4").tobytes(), "undecodable", "not a cloud or mesh of a known format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "undecodable", "git lfs pull"),
        (b"#binvox 1\ndim 2000 2000 2000\ndata\n\1\xff", "undecodable", "8000000000|2000 x 2000"),
        (b"glTF" + struct.pack("<II", 2, 20) + struct.pack("<I", 9**9) + b"JSON", "undecodable", "broken GLB file"),
        (b"v 0 0 0\nv 1 1 1\n" + b"v 1 2 3 " * 200_000, "undecodable", "a line of"),
    ],
)
def test_files_that_lie_are_refused_before_anything_is_reserved(data: bytes, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        describe(data, Limits())
    assert refused.value.code == code


# trimesh, by which the listing was measured, splits vertices where the texture has a seam; the file itself has 502.
SPLIT = {"formats/trimesh/fuze.ply": 502}
# Not measured in the listing: what other dialects of the same object have, or the header says.
DIAMONDS = ("diamond.las", "diamond.laz", "diamond.npy", "diamond.npz", "diamond_with_bool.ply")
UNLISTED = dict.fromkeys((f"formats/diamond/{name}" for name in DIAMONDS), 6) | {
    "formats/assimp/box_UTF16BE.obj": 8,
    "formats/diamond/simple.las": 1065,
    "formats/draco/delim_test.ply": 24,
    "formats/modelnet_off/bathtub_0108.derived_inline_header.off": 352,
    "formats/stanford/bun_zipper_res3.derived_big_endian.ply": 1889,
    "formats/trimesh/chair_model.binvox": 1932,
}
WITHOUT_HEADER = "formats/diamond/diamond.bin"  # raw numbers, and nothing that says so


def listing(folder: Path) -> Iterator[tuple[str, str, str]]:
    """File, expectation and measurement of everything but images."""
    with (folder / "LISTING.tsv").open(newline="") as file:
        for name, expected, measured, *_ in list(csv.reader(file, delimiter="\t"))[1:]:
            if "/images/" not in name:
                yield name, expected, measured


@pytest.mark.data
def test_every_real_file_has_the_listed_number_of_points(data_dir: Path) -> None:
    files = [row for row in listing(data_dir / "formats") if row[0] != WITHOUT_HEADER]
    assert len(files) == 87
    for name, _, measured in files:
        found = describe((data_dir / name).read_bytes(), Limits())
        number = re.search(r"(?:\bv=|\bfinite=)(\d+)", measured)
        count = SPLIT.get(name) or (int(number[1]) if number else UNLISTED[name])
        assert len(found.points) == count, name
        faces = re.search(r"\bf=(\d+)", measured)
        assert faces is None or _faces(found) == int(faces[1]), name
        box = re.search(r"bbox=\[(.*?)\]\.\.\[(.*?)\]", measured)
        if box:
            listed = np.array([[float(number) for number in side.split(",")] for side in box.groups()])
            assert np.allclose([found.points.min(axis=0), found.points.max(axis=0)], listed, atol=6e-5), name


def _faces(found: Geometry) -> int:
    return 0 if found.triangles is None else len(found.triangles)


@pytest.mark.data
def test_the_diamond_is_the_same_in_every_format(data_dir: Path) -> None:
    files = [file for file in sorted((data_dir / "formats" / "diamond").glob("diamond*")) if file.suffix != ".bin"]
    expected = {(0.5, 0, 0.5), (0, 0.5, 0.5), (0.5, 0.5, 0), (1, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1)}
    assert len(files) == 13
    for file in files:
        assert set(map(tuple, describe(file.read_bytes(), Limits()).points.tolist())) == expected, file.name


@pytest.mark.data
def test_numbers_without_a_header_are_refused_by_name_of_what_is_known(data_dir: Path) -> None:
    with pytest.raises(InputError, match="not a cloud or mesh of a known format; send one of PLY"):
        describe((data_dir / WITHOUT_HEADER).read_bytes(), Limits())
