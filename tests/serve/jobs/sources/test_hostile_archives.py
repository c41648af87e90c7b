"""Archives made to harm: refused in one line that names the member, or an error of the one item."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from isolatent_serve.jobs.plan import Stopped
from isolatent_serve.jobs.sources import SourceLimits, list_inputs
from sources_support import contents, error, listed, png, read, refusal


def tar_of(path: Path, *members: tuple[str, bytes | tuple[bytes, str]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return path


def zip_of(path: Path, *members: tuple[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, content, method)
    return path


MAKERS: tuple[Callable[..., Path], ...] = (tar_of, zip_of)
NAMES = {
    "../../etc/cron.d/x.png": "leads out of the archive",
    "a/../../x.png": "leads out of the archive",
    "..\\..\\x.png": "leads out of the archive",
    "/etc/x.png": "absolute name",
    "C:/windows/x.png": "absolute name",
    "\\\\server\\x.png": "absolute name",
    "inner.zip": "an archive in an archive",
    "deep/inner.tar.gz": "an archive in an archive",
    "n" * 5000 + ".png": "a name of 5004 characters",
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, make: Callable[..., Path], name: str) -> None:
    told = refusal(make(tmp_path / "bad", ("0.png", png(0)), (name, b"x")))
    assert NAMES[name] in told
    assert ascii(name)[1:60] in told


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    told = refusal(tar_of(tmp_path / "bad.tar", ("0.png", png(0)), ("x.png", (kind, "/etc/passwd"))))
    assert "'x.png' is a link" in told or "'x.png' is a device or a pipe" in told


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip_are_refused(tmp_path: Path, kind: int) -> None:
    assert "'x.png' is a" in refusal(zip_of(tmp_path / "bad.zip", ("x.png", b"/etc/passwd"), mode=kind | 0o777))


def test_links_as_real_programs_pack_them_are_refused(folder: Path) -> None:
    (folder / "link.png").symlink_to("0.png")
    subprocess.run("tar -cf ../l.tar . && zip -qry ../l.zip .", shell=True, cwd=folder, check=True)
    assert "dereference" in refusal(folder.parent / "l.tar")
    assert "--symlinks" in refusal(folder.parent / "l.zip")


def test_a_sparse_file_in_tar_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "holes.png").open("wb") as file:
        file.truncate(2**30)
    subprocess.run(["tar", "-Scf", "s.tar", "holes.png"], cwd=tmp_path, check=True)
    assert "sparse" in refusal(tmp_path / "s.tar")


def test_an_encrypted_zip_is_refused(folder: Path) -> None:
    subprocess.run(["zip", "-qrP", "secret", "../locked.zip", "0.png"], cwd=folder, check=True)
    assert "'0.png' is encrypted" in refusal(folder.parent / "locked.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_method_is_refused(tmp_path: Path, method: int) -> None:
    assert f"method {method}" in refusal(zip_of(tmp_path / "odd.zip", ("x.png", bytes(999)), method=method))


@pytest.mark.parametrize("make", MAKERS)
def test_too_many_members_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "many", *((f"{number}.txt", b"x") for number in range(11)))
    assert "11 members or more, the limit is 10" in refusal(path, limits=SourceLimits(archive_items=10))


@pytest.mark.parametrize("make", MAKERS)
def test_too_many_bytes_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "large", ("a.png", os.urandom(600)), ("b.png", os.urandom(600)))
    assert "'b.png' brings it to 1200 bytes" in refusal(path, limits=SourceLimits(archive_bytes=1000))


def test_a_zip_bomb_is_refused_while_planning(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bomb.zip", *((f"{number}.png", bytes(2**20)) for number in range(64)))
    assert "200 per packed byte" in refusal(path)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bomb.tar.gz").write_bytes(pack(bytes(2**26)))
    assert "bytes unpacked" in refusal(tmp_path / "bomb.tar.gz", unpack=tmp_path / "unpacked")
    assert not any((tmp_path / "unpacked").iterdir())


def test_xz_that_asks_for_gigabytes_of_memory_is_refused(tmp_path: Path) -> None:
    packed = lzma.compress(b"x")
    block = bytearray(packed[12:24])
    block[block.index(b"\x21\x01") + 2] = 39  # stands for 3 GiB
    block[-4:] = struct.pack("<L", zlib.crc32(block[:-4]))
    (tmp_path / "wide.tar.xz").write_bytes(packed[:12] + block + packed[24:])
    assert "not a whole archive" in refusal(tmp_path / "wide.tar.xz", unpack=tmp_path)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", ("0.png", os.urandom(500)), method=zipfile.ZIP_STORED)
    data = path.read_bytes()
    entry, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    listing = data[entry:end] * 3  # one member three times: what quoted overlaps come down to
    tail = bytearray(data[end:])
    struct.pack_into("<HHL", tail, 8, 3, 3, len(listing))
    path.write_bytes(data[:entry] + listing + tail)
    assert "overlaps" in refusal(path)


@pytest.mark.parametrize("change", [b"x", b"\x89PNG and more that was never announced"])
def test_a_size_that_the_content_does_not_have_is_an_error_of_the_item(tmp_path: Path, change: bytes) -> None:
    path = zip_of(tmp_path / "lying.zip", ("0.png", png(0)), ("1.png", png(1)))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    struct.pack_into("<L", data, entry + 24, len(png(0)) + (7 if len(change) > 1 else -7))
    path.write_bytes(data)
    found = read(path)
    assert "bytes announced by its archive" in error(found["0.png"]).detail
    assert found["1.png"] == png(1)


def test_content_that_was_damaged_is_an_error_of_the_item(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zip_of(tmp_path / "damaged.zip", ("0.png", png(0)), ("1.png", png(1)), method=method)
        data = bytearray(path.read_bytes())
        data[30 + 5 + 10] ^= 0xFF
        path.write_bytes(data)
        found = read(path)
        assert error(found["0.png"]).code == "undecodable"
        assert found["1.png"] == png(1)


def test_two_names_for_one_member_are_noticed(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", ("0.png", png(0)))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 46] = ord("9")
    path.write_bytes(data)
    assert "another member is at its place" in error(read(path)["9.png"]).detail


@pytest.mark.parametrize("size", [-1, -512, -(2**40)])
def test_a_header_that_leads_backwards_ends_the_listing(tmp_path: Path, size: int) -> None:
    path = tar_of(tmp_path / "back.tar", ("0.png", png(0)), ("1.png", png(1)))
    data = bytearray(path.read_bytes())
    header = tarfile.TarInfo("1.png")
    header.size = size
    data[1024:1536] = header.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(data)
    assert f"announces {size} bytes" in refusal(path)


def test_sizes_in_extended_headers_are_looked_at_too(tmp_path: Path) -> None:
    for size in ("-512", str(2**40)):
        path = tmp_path / "pax.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("0.png")
            member.pax_headers = {"size": size}
            archive.addfile(member)
        assert "'0.png'" in refusal(path)


def test_a_header_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (tmp_path / "long.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert f"announces {2**40} bytes" in refusal(tmp_path / "long.tar")


def test_headers_of_headers_without_end_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    (tmp_path / "deep.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) * 5000)
    assert "not a whole archive" in refusal(tmp_path / "deep.tar")


@pytest.mark.parametrize("make", MAKERS)
def test_an_archive_cut_off_anywhere_is_refused_or_whole(tmp_path: Path, make: Callable[..., Path]) -> None:
    data = make(tmp_path / "whole", ("0.png", png(0)), ("1.png", png(1))).read_bytes()
    end = data.rindex(b"PK\5\6") + 22 if make is zip_of else 3 * 512 + 1
    path = tmp_path / f"cut.{'zip' if make is zip_of else 'tar'}"
    for length in range(0, end, 37):
        path.write_bytes(data[:length])
        try:
            assert list(contents(listed(path)).values()) in ([png(0)], [])  # tar knows no number of members
        except Exception as error:
            assert type(error).__name__ == "SourceError"  # noqa: PT017 - either is right
        else:
            assert make is tar_of


@pytest.mark.parametrize("make", MAKERS)
def test_damage_anywhere_never_gives_wrong_content(tmp_path: Path, make: Callable[..., Path]) -> None:
    data = make(tmp_path / "whole", ("0.png", png(0)), ("1.png", png(1))).read_bytes()
    path = tmp_path / f"damaged.{'zip' if make is zip_of else 'tar'}"
    for place in range(0, min(len(data), 2100), 11):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        try:
            found = contents(listed(path))
        except Exception as error:
            assert type(error).__name__ == "SourceError", error  # noqa: PT017 - either is right
            continue
        if make is zip_of:  # whose contents have checksums
            assert {content for content in found.values() if isinstance(content, bytes)} <= {png(0), png(1)}


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar", "a.tgz", "a.tar.xz"):
        for content in (b"", b"\0", b"text", os.urandom(5000), b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"PK\5\6"):
            (tmp_path / name).write_bytes(content)
            if name != "a.tar" or content.strip(b"\0"):
                assert "not a whole archive" in refusal(tmp_path / name, unpack=tmp_path / "unpacked")
    (tmp_path / "a.7z").touch()
    assert "unpack it" in refusal(tmp_path / "a.7z")


def test_a_member_that_is_larger_packed_than_an_item_may_be_is_not_read(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", ("a.png", png(0)), ("b.png", bytes(200_000)))
    small, _ = listed(path)
    wasteful = small._replace(locator=small.locator._replace(size=100_000))  # as its archive might say
    assert error(contents([wasteful], limits=SourceLimits(item_bytes=1000))["a.png"]).code == "too_many_bytes"
    assert contents([small], limits=SourceLimits(item_bytes=1000))["a.png"] == png(0)


def test_what_is_unpacked_leaves_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of(tmp_path / "a.tar", ("a.png", png(0))).read_bytes()))
    limits = SourceLimits(free_bytes=2**62)
    assert "no room to unpack it" in refusal(path, unpack=tmp_path / "unpacked", limits=limits)
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_what_is_unpacked_is_on_the_disk_before_anything_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unpacked = tmp_path / "a.tgz", tmp_path / "unpacked"
    path.write_bytes(gzip.compress(tar_of(tmp_path / "a.tar", ("a.png", png(0))).read_bytes()))
    settled: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (settled.append(os.fstat(file).st_ino), fsync(file)))
    next(iter(list_inputs([str(path)], unpack=unpacked)))
    places = (unpacked.parent, unpacked / "000000.tar", unpacked)
    assert settled == [place.stat().st_ino for place in places]


def test_unpacking_can_be_stopped_in_the_middle(tmp_path: Path) -> None:
    path, calls = tmp_path / "a.tgz", []
    path.write_bytes(gzip.compress(os.urandom(5 * 2**20), 1))

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        listed(path, unpack=tmp_path / "unpacked", check=check)
    assert list((tmp_path / "unpacked").iterdir()) == []


@pytest.mark.parametrize("make", MAKERS)
def test_an_archive_without_inputs_can_be_stopped(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / f"a.{make.__name__[:3]}", *((f"{number}.md", b"") for number in range(9)))

    def check() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        listed(path, check=check)
