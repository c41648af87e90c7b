"""Tar and zip archives as programs make them: every member as it went in, read from its place alone."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from isolatent_serve.jobs.sources import Locator, Reader, Skipped, SourceLimits
from sources_support import contents, error, ids, listed, png, read

PACKED = {"tar": "tar -cf", "tgz": "tar -czf", "tar.gz": "tar -czf", "tar.bz2": "tar -cjf", "tar.xz": "tar -cJf"}


def archive(folder: Path, suffix: str, command: str) -> Path:
    path = folder.parent / f"made.{suffix}"
    subprocess.run(f"{command} {path} .", shell=True, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("suffix", PACKED)
def test_what_tar_makes_is_read(folder: Path, pictures: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    assert read(archive(folder, suffix, PACKED[suffix]), unpack=tmp_path / "unpacked") == pictures


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_every_form_of_tar_and_long_names_are_read(folder: Path, form: str) -> None:
    name = "n" * (90 if form in ("v7", "ustar") else 200) + ".png"
    (folder / name).write_bytes(png(7))
    assert read(archive(folder, "tar", f"tar --format={form} -cf"))[name] == png(7)


@pytest.mark.parametrize("options", ["-qr", "-qr0", "-qr9", "-qrfd", "-qrfz", "-qrX", "-qrD"])
def test_what_zip_makes_is_read(folder: Path, pictures: dict[str, bytes], options: str) -> None:
    assert read(archive(folder, "zip", f"zip {options}")) == pictures


def test_a_zip_written_as_a_stream_is_read(folder: Path, pictures: dict[str, bytes]) -> None:
    path = folder.parent / "streamed.zip"
    path.write_bytes(subprocess.run("zip -qr - . | cat", shell=True, cwd=folder, check=True, stdout=-1).stdout)
    assert read(path) == pictures


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 100])
@pytest.mark.parametrize("comment", [b"", b"made today", bytes(65535)])
def test_a_zip_is_listed_as_zipfile_lists_it(tmp_path: Path, before: bytes, comment: bytes) -> None:
    path = tmp_path / "made.zip"
    path.write_bytes(before)
    with zipfile.ZipFile(path, "a") as made:
        for number, name in enumerate(["ä/é.png", "日本.png", "plain.png", "x" * 300 + ".png", "empty.png"]):
            method = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            made.writestr(name, b"" if name == "empty.png" else os.urandom(number * 999) + bytes(999), method)
        made.comment = comment
    with zipfile.ZipFile(path) as opened:
        assert read(path) == {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.parametrize("announced", [3, 0xFFFF])
def test_a_zip_with_a_wide_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int) -> None:
    path = tmp_path / "many.zip"
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    with zipfile.ZipFile(path, "w") as made:
        for number in range(3):
            made.writestr(f"{number}.png", str(number))
    data = bytearray(path.read_bytes())
    data[-14:-10] = announced.to_bytes(2, "little") * 2
    path.write_bytes(data)
    assert b"PK\6\7" in data
    assert read(path) == {"0.png": b"0", "1.png": b"1", "2.png": b"2"}


def test_sizes_that_do_not_fit_into_32_bits_are_read_from_the_wide_field(tmp_path: Path) -> None:
    path = tmp_path / "wide.zip"
    with zipfile.ZipFile(path, "w") as made, made.open("0.png", "w", force_zip64=True) as member:
        member.write(png(1))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    wide = len(png(1)).to_bytes(8, "little") * 2
    data[entry + 20 : entry + 28] = b"\xff" * 8
    data[entry + 30 : entry + 32] = (4 + len(wide)).to_bytes(2, "little")
    name_end = entry + 46 + 5
    data[name_end:name_end] = b"\1\0" + len(wide).to_bytes(2, "little") + wide
    end = data.rindex(b"PK\5\6")
    data[end + 12 : end + 16] = (end - entry).to_bytes(4, "little")
    path.write_bytes(data)
    with zipfile.ZipFile(path) as opened:
        assert opened.read("0.png") == png(1)
    assert read(path) == {"0.png": png(1)}


def test_a_local_extra_field_of_any_length_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "padded.zip"
    info = zipfile.ZipInfo("0.png")
    info.extra = b"\xfe\xca" + (9000).to_bytes(2, "little") + bytes(9000)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(info, png(1))
    assert read(path) == {"0.png": png(1)}


def test_members_are_read_in_any_order_from_their_places_alone(folder: Path, pictures: dict[str, bytes]) -> None:
    items = [*listed(archive(folder, "zip", "zip -qr")), *listed(archive(folder, "tar", "tar -cf"))]
    random.Random(0).shuffle(items)
    reader = Reader()
    for item, found in zip(items, reader.items(each.locator for each in items), strict=True):
        assert found == pictures[item.id]
    reader.close()


def test_what_is_no_input_is_passed_over_and_counted(folder: Path) -> None:
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/0.png").touch()
    for suffix, command in (("zip", "zip -qr"), ("tar", "tar -cf")):
        skipped = Skipped()
        assert len(ids(archive(folder, suffix, command), skipped=skipped)) == 5
        assert skipped.counts == {"hidden": 3, "other suffix": 1}


def test_archives_that_a_pattern_matches_are_folders(folder: Path, pictures: dict[str, bytes]) -> None:
    archive(folder, "zip", "zip -qr")
    archive(folder, "tar", "tar -cf")
    found = read(folder.parent / "made.*")
    assert found == {f"made.{kind}/{name}": content for kind in ("tar", "zip") for name, content in pictures.items()}


def test_an_archive_is_known_by_its_content_where_its_name_says_nothing(
    folder: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    for suffix, command in (("zip", "zip -qr"), ("tar", "tar -cf"), ("tgz", "tar -czf")):
        path = archive(folder, suffix, command).rename(tmp_path / f"upload-{suffix}")
        assert read(path, unpack=tmp_path / "unpacked") == pictures


def test_several_streams_of_xz_and_gzip_are_one_archive(
    folder: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    plain = archive(folder, "tar", "tar -cf").read_bytes()
    for command in ("gzip", "xz", "bzip2"):
        parts = [
            subprocess.run([command], input=half, stdout=-1, check=True).stdout for half in (plain[:999], plain[999:])
        ]
        (tmp_path / "parts.tar.gz").write_bytes(b"".join(parts))
        assert read(tmp_path / "parts.tar.gz", unpack=tmp_path / "unpacked") == pictures


def test_a_member_that_is_too_large_is_an_error_of_its_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("large.png", os.urandom(5000))
        made.writestr("small.png", png(1))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("large.png", bytes(5000)), ("small.png", png(1))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for path in (tmp_path / "a.zip", tmp_path / "a.tar"):
        found = read(path, limits=SourceLimits(item_bytes=1000))
        assert error(found["large.png"]).detail.startswith("5000 bytes, the limit is 1000")
        assert found["small.png"] == png(1)


def test_an_archive_that_was_replaced_is_noticed(folder: Path) -> None:
    for suffix, command in (("zip", "zip -qr"), ("tar", "tar -cf")):
        path = archive(folder, suffix, command)
        items = listed(path)
        path.write_bytes(os.urandom(path.stat().st_size))
        assert {error(found).code for found in contents(items).values()} == {"unreadable"}


def test_no_more_of_an_archive_is_open_than_the_last_one(folder: Path) -> None:
    path = archive(folder, "tar", "tar -cf")
    locators = [each.locator for each in listed(path)] + [Locator("file", str(folder / "0.png"))]
    reader = Reader()
    assert len(list(reader.items(locators))) == 6
    assert path not in {link.resolve() for link in Path("/proc/self/fd").iterdir()}
    reader.close()


@pytest.mark.data
def test_real_files_are_the_same_in_a_folder_and_in_archives(data_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "files"
    shutil.copytree(data_dir / "hostile/images", source)
    expected = read(source)
    assert len(expected) > 50
    for suffix, command in (("zip", "zip -qr1"), ("tgz", "tar -czf")):
        assert read(archive(source, suffix, command), unpack=tmp_path / "unpacked") == expected
