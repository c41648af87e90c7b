"""What is asked of every member of an archive, whatever its format, before anything of it is read.

Nothing is ever written under a member's name, but the name becomes an id: whoever writes files by ids must be safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from isolatent_serve.jobs.sources.inputs import Check, Skipped, SourceError, SourceLimits, Wanted, unchecked

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
TABLES = (".parquet", ".parq", ".pq")
CONTAINERS = (".zip", *TARS, *TABLES)
"""How the names of what has items in it end, where it is read."""
CLOSED = (".tar.zst", ".tzst", ".tar.lz4", ".7z", ".rar", ".cab")
"""How the names of archives end that are not read."""
_LONGEST_NAME = 4096


def refused(archive: str, name: str, reason: str, remedy: str) -> SourceError:
    """An archive that is not read because of one member."""
    return SourceError(f"{archive}: the member {ascii(name)[:200]} {reason}; {remedy}")


@dataclass
class Checked:
    """The checks of one archive: members are shown to it one by one."""

    archive: str
    packed_bytes: int
    keep: Wanted
    passed: Skipped
    limits: SourceLimits
    check: Check = unchecked
    count: int = 0
    total: int = 0

    def announced(self, count: int) -> None:
        """Raise SourceError for more members than an archive may have, and what `check` raises."""
        self.check()
        if count > self.limits.archive_items:
            raise SourceError(
                f"{self.archive}: {count} members or more, the limit is {self.limits.archive_items}; "
                "split it into several archives"
            )

    def takes(self, name: str, size: int) -> str | None:
        """The name of a plain member that is an input, without a leading ./; None: it is passed over.

        Raises SourceError for a name that leads elsewhere, an archive in the archive, and too much of everything.
        """
        self.count += 1
        self.announced(self.count)
        self._add(name, size)
        name = self._plain(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
            self.passed.add("hidden", name)
        elif self.keep(name):
            return name
        elif name.lower().endswith((*CONTAINERS, *CLOSED)):
            raise refused(self.archive, name, "is an archive in an archive", "unpack it, and name it by itself")
        else:
            self.passed.add("other suffix", name)
        return None

    def folder(self, name: str) -> None:
        """Look at a folder, of which nothing is read. Raises SourceError like `takes`."""
        self.count += 1
        self.announced(self.count)
        if name.strip("./"):
            self._plain(name)

    def _add(self, name: str, size: int) -> None:
        limits = self.limits
        self.total += size
        most = min(limits.archive_bytes, limits.archive_ratio * max(self.packed_bytes, 4096))
        if size < 0:
            raise refused(self.archive, name, f"announces {size} bytes", "make the archive again")
        if self.total > most:
            raise refused(
                self.archive,
                name,
                f"brings it to {self.total} bytes unpacked, where {most} are allowed "
                f"({limits.archive_bytes}, and {limits.archive_ratio} per packed byte)",
                "unpack it yourself if you trust it, and name the folder",
            )

    def _plain(self, name: str) -> str:
        again = "make the archive again with relative names"
        if len(name) > _LONGEST_NAME:
            raise refused(self.archive, name, f"has a name of {len(name)} characters", again)
        if name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\"):
            raise refused(self.archive, name, "has an absolute name", again)
        if ".." in name.replace("\\", "/").split("/"):
            raise refused(self.archive, name, "leads out of the archive", again)
        if "\0" in name:
            raise refused(self.archive, name, "has a zero in its name", again)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            raise refused(self.archive, name, "has no name", again)
        return "/".join(parts)


def cut_off(archive: str, reason: object) -> SourceError:
    """An archive that is damaged."""
    lines = str(reason).splitlines() or [type(reason).__name__]
    return SourceError(f"{archive}: not a whole archive ({lines[0][:160]}); get or make it again")
