"""Inputs behind URIs: memory://, a web server and, where s3fs and moto are installed, a stand-in for S3."""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations

from sources_support import contents, error, listed, read, refusal


@pytest.fixture
def stored(folder: Path, pictures: dict[str, bytes]) -> Path:
    """A folder with the pictures, archives and tables of them."""
    root = folder.parent
    for command in ("zip -qr ../a.zip .", "tar -cf ../a.tar .", "tar -czf ../a.tgz ."):
        subprocess.run(command, shell=True, cwd=folder, check=True)
    files = pa.table({"id": list(pictures), "image": list(pictures.values())})
    pq.write_table(files, root / "files.parquet", row_group_size=2)
    pq.write_table(pa.table({"path": [f"pictures/{name}" for name in pictures]}), root / "paths.parquet")
    return root


@pytest.fixture
def memory(stored: Path) -> Iterator[str]:
    """The stored files in memory://."""
    files = fsspec.filesystem("memory")
    files.put(str(stored), "/bucket", recursive=True)
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.fixture
def s3(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stored files in a bucket of a server on this machine that speaks like S3."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    files = s3fs.S3FileSystem()
    files.mkdir(f"bucket-{port}")  # moto keeps what earlier servers had
    files.put(str(stored), f"bucket-{port}/x", recursive=True)
    yield f"s3://bucket-{port}/x"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def uri(request: pytest.FixtureRequest) -> str:
    """Where the stored files are."""
    return str(request.getfixturevalue(request.param))


def test_folders_patterns_files_archives_and_tables_are_read(
    uri: str, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("pictures", "pictures/**", "a.zip", "a.tar", "a.tgz", "files.parquet"):
        assert read(f"{uri}/{name}", unpack=tmp_path / "unpacked") == pictures, name
    assert read(f"{uri}/paths.parquet") == {f"pictures/{name}": content for name, content in pictures.items()}
    assert read(f"{uri}/pictures/1.png") == {"1.png": pictures["1.png"]}
    assert set(read(f"{uri}/a.z*")) == {f"a.zip/{name}" for name in pictures}


def test_what_vanished_or_changed_is_an_error_of_its_items(uri: str, pictures: dict[str, bytes]) -> None:
    items, members = listed(f"{uri}/pictures"), listed(f"{uri}/a.tar")
    files, path = fsspec.core.url_to_fs(uri)
    files.rm(f"{path}/pictures/1.png")
    files.pipe(f"{path}/a.tar", b"another")
    found = contents(items)
    assert error(found.pop("1.png")).code == "unreadable"
    assert found == {name: content for name, content in pictures.items() if name != "1.png"}
    assert {error(each).code for each in contents(members).values()} == {"unreadable"}


def test_an_empty_object_is_an_empty_item(uri: str) -> None:
    files, path = fsspec.core.url_to_fs(uri)
    files.pipe(f"{path}/pictures/empty.png", b"")
    assert read(f"{uri}/pictures")["empty.png"] == b""


def test_a_file_uri_is_the_file(folder: Path, pictures: dict[str, bytes]) -> None:
    (folder / "a b%.png").write_bytes(pictures["0.png"])
    assert read((folder / "a b%.png").as_uri()) == {"a b%.png": pictures["0.png"]}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Knows no ranges: it sends whole files."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(stored: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(stored))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_that_lists_its_folders_is_read(web: str, pictures: dict[str, bytes]) -> None:
    pytest.importorskip("aiohttp")
    assert read(f"{web}/pictures/") == pictures
    assert read(f"{web}/pictures/0.png") == {"0.png": pictures["0.png"]}


def test_what_cannot_be_reached_is_told_with_the_remedy() -> None:
    assert "Protocol not known: nowhere" in refusal("nowhere://x/y.png")
    assert "no such file" in refusal("memory://nothing/here")
    assert "hunter2" not in refusal("sftp://me:hunter2@example.org/x.png")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"class": "missing_files.Files", "err": "install it"}
    monkeypatch.setitem(known_implementations, "odd", known)
    assert refusal("odd://x/y.png").endswith("odd:// needs a package that is missing; pip install missing-files")
