"""Files behind a URI, on any file system that fsspec knows: s3://, gs://, az://, https://, sftp://, memory:// ...

Credentials are the environment's: what boto, gcloud and the like read, or FSSPEC_S3_KEY and its kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import urlsplit

import fsspec
from fsspec.core import url_to_fs

from isolatent_serve.jobs.sources.inputs import Entry, Range, SourceError


def locate(uri: str) -> tuple[Remote, str]:
    """The file system of `uri` and the path there. Raises SourceError: unknown, no package, a password in it."""
    scheme = uri.partition("://")[0]
    if ":" in _user(uri):
        raise SourceError(
            f"{scheme}://: a password in an address would be kept with the job; set it in the environment"
        )
    try:
        file_system, path = url_to_fs(uri)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or getattr(error, "name", None) or scheme
        package = missing.partition(".")[0].replace("_", "-")
        raise SourceError(f"{uri}: {scheme}:// needs a package that is missing; pip install {package}") from None
    except Exception as error:
        known = "give a path, or a URI such as s3://BUCKET/FOLDER"
        raise SourceError(f"{uri}: cannot be reached ({_first_line(error)}); {known}") from None
    return Remote(file_system), path


class Remote:
    """The place of paths in one fsspec file system."""

    def __init__(self, file_system: fsspec.AbstractFileSystem) -> None:
        self._fs: Any = file_system

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """What is at `path`. Raises SourceError when the storage does not say."""
        with self._explained(path):
            try:
                found = self._fs.info(path)["type"]
            except FileNotFoundError:
                return None
        return "folder" if found == "directory" or path.endswith("/") else "file"  # web servers know files only

    def entries(self, path: str) -> Iterator[Entry]:
        """What a folder has in it, sorted by name: its listing is in memory, that of other folders is not."""
        with self._explained(path):
            listing = self._fs.ls(path, detail=True)
            self._fs.invalidate_cache(path)
        own = path.rstrip("/")
        found = []
        for each in listing:
            name = each["name"].rstrip("/")
            if name != own:  # the empty object that stands for the folder
                kind = {"directory": "folder", "file": "file"}.get(each["type"], "no plain file")
                found.append(Entry(name.rpartition("/")[2], kind, -1 if each.get("size") is None else each["size"]))
        del listing
        yield from sorted(found)

    def open(self, path: str) -> BinaryIO:
        """A file that fetches what is read, in blocks. Raises OSError."""
        try:
            return cast(BinaryIO, self._fs.open(path, "rb"))
        except OSError:
            raise
        except Exception as error:  # of a dozen client libraries, with no common base
            raise OSError(_first_line(error)) from None

    def stamp(self, path: str) -> str:
        """What the storage says of the file, hashed where it has no better way. Raises OSError."""
        try:
            return f"{self._fs.info(path).get('size')}-{str(self._fs.ukey(path))[:16]}"
        except OSError:
            raise
        except Exception as error:
            raise OSError(_first_line(error)) from None

    def read(self, ranges: Sequence[Range]) -> list[bytes | Exception]:
        """All ranges at a time."""
        try:
            found = self._fs.cat_ranges(
                [each.path for each in ranges],
                [each.start for each in ranges],
                [each.end for each in ranges],
                on_error="return",
            )
        except Exception as error:
            return [error] * len(ranges)
        return [
            data if isinstance(data, Exception) else _part(bytes(data), each)
            for data, each in zip(found, ranges, strict=True)
        ]

    def uri(self, path: str) -> str:
        """The whole URI."""
        return str(self._fs.unstrip_protocol(path))

    def close(self) -> None:
        """Nothing stays open."""

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise SourceError(
                f"{self.uri(path)}: cannot be listed ({_first_line(error)}); check the address, the network and the "
                "credentials in the environment"
            ) from None


def _user(uri: str) -> str:
    """What stands before the host. Raises SourceError."""
    try:
        return urlsplit(uri).netloc.rpartition("@")[0]
    except ValueError as error:  # such as a bracket that is not closed
        raise SourceError(f"{uri[:200]!a}: no address ({error}); correct it") from None


def _part(data: bytes, asked: Range) -> bytes:
    """What was asked for: a web server that knows no ranges sends everything."""
    return data if len(data) <= asked.end - asked.start else data[asked.start : asked.end]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:160] if lines else type(error).__name__
