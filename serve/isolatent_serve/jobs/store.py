"""What the service knows about files and jobs: an SQLite database that several processes of it share.

Every method is one transaction, which is on the disk when it returns, and may be called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from isolatent_serve.jobs.locks import locked
from isolatent_serve.jobs.rows import STATES, FileRow, JobRow, State, columns, file_row, job_row
from isolatent_serve.settings import JobSettings

BUSY_SECONDS = 30.0
"""How long a transaction waits for that of another process."""

_MIGRATIONS = (
    """
    CREATE TABLE files (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
        filename TEXT NOT NULL, suffix TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
        created REAL NOT NULL, expires REAL NOT NULL
    );
    CREATE INDEX files_of_owner ON files (owner, number);
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, state TEXT NOT NULL,
        model TEXT NOT NULL, version TEXT NOT NULL, bundle TEXT NOT NULL, digest TEXT NOT NULL,
        input TEXT NOT NULL, source TEXT NOT NULL, file TEXT, outputs TEXT NOT NULL, format TEXT NOT NULL,
        samples INTEGER NOT NULL, metadata TEXT NOT NULL,
        total INTEGER, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
        created REAL NOT NULL, started REAL, finished REAL, expires REAL, error TEXT,
        key TEXT, request TEXT NOT NULL, UNIQUE (owner, key)
    );
    CREATE INDEX jobs_of_owner ON jobs (owner, number);
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_of_file ON jobs (file) WHERE file IS NOT NULL;
    """,
)
"""What brings a database of version N, its user_version, to N + 1."""

_PENDING = "state IN ('queued', 'running', 'cancelling')"
_END_CANCELLED = "UPDATE jobs SET state = 'cancelled', finished = ?, expires = ? WHERE"
_LAST = 2**62
_DAY = 86400


class StoreError(Exception):
    """A database that cannot be used. The message is one line that names the remedy."""


class InUseError(Exception):
    """A file that a job needs, whose id is the argument."""


class GoneError(Exception):
    """A file that a job would need, and that is not there any more."""


class NotOverError(Exception):
    """A job that is not over, whose state is the argument."""


class FullError(Exception):
    """More than there may be."""


class ConflictError(Exception):
    """An idempotency key that was used for another request."""


class Store:
    """The database at `path`, which is made if it is not there. `retention` is in seconds. Raises StoreError."""

    def __init__(self, path: Path, retention: float) -> None:
        self._retention = retention
        self._lock = threading.Lock()
        try:
            with locked(path.with_suffix(".lock")):  # SQLite does not wait for others while it is turned to WAL
                self._open(path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: {error}; give a directory on a local disk that the service may write") from None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._database.close()

    # Files

    def add_file(self, row: FileRow, most_bytes: int) -> None:
        """Keep a file. Raises FullError when all files together would have more than `most_bytes`."""
        with self._writing() as database:
            if _stored(database) + row.bytes > most_bytes:
                raise FullError
            _insert(database, "files", row)

    def stored_bytes(self) -> int:
        """Bytes of all files together."""
        with self._reading() as database:
            return _stored(database)

    def file(self, owner: str, identity: str) -> FileRow | None:
        """One file of an owner."""
        with self._reading() as database:
            return _file(database, owner, identity)

    def files(self, owner: str, most: int, before: int | None = None) -> list[FileRow]:
        """At most so many files of an owner, the newest first, made before number `before`."""
        query = "SELECT * FROM files WHERE owner = ? AND number < ? ORDER BY number DESC LIMIT ?"
        with self._reading() as database:
            return [file_row(each) for each in database.execute(query, (owner, before or _LAST, most))]

    def remove_file(self, owner: str, identity: str) -> FileRow | None:
        """Forget a file; returns what it was. Raises InUseError when a job that is not over needs it."""
        with self._writing() as database:
            row = _file(database, owner, identity)
            user = database.execute(f"SELECT id FROM jobs WHERE file = ? AND {_PENDING}", (identity,)).fetchone()
            if row and user:
                raise InUseError(user["id"])
            database.execute("DELETE FROM files WHERE owner = ? AND id = ?", (owner, identity))
            return row

    # Jobs, for those who ask for them

    def add_job(self, row: JobRow, most_pending: int) -> tuple[JobRow, bool]:
        """Keep a job, unless its owner has one with the same idempotency key: returns that then, and False.

        Raises ConflictError when that one was asked for otherwise, FullError when the owner has `most_pending` jobs
        that are not over, and GoneError when its file is not there any more.
        """
        with self._writing() as database:
            known = _of_key(database, row.owner, row.key)
            if known:
                return _same(known, row.request), False
            count = f"SELECT count(*) FROM jobs WHERE owner = ? AND {_PENDING}"
            if database.execute(count, (row.owner,)).fetchone()[0] >= most_pending:
                raise FullError
            if row.file and not _file(database, row.owner, row.file):
                raise GoneError
            _insert(database, "jobs", row)
            made = _job(database, row.owner, row.id)
            assert made
            return made, True

    def job_of_key(self, owner: str, key: str, request: str) -> JobRow | None:
        """The job that an owner made with an idempotency key. Raises ConflictError when it was asked for otherwise."""
        with self._reading() as database:
            known = _of_key(database, owner, key)
            return known and _same(known, request)

    def job(self, owner: str, identity: str) -> JobRow | None:
        """One job of an owner."""
        with self._reading() as database:
            return _job(database, owner, identity)

    def jobs(self, owner: str, most: int, before: int | None = None, state: str | None = None) -> list[JobRow]:
        """At most so many jobs of an owner, the newest first, made before number `before`, all or of one state."""
        query = "SELECT * FROM jobs WHERE owner = ? AND number < ? AND ? IN (state, '') ORDER BY number DESC LIMIT ?"
        with self._reading() as database:
            return [job_row(each) for each in database.execute(query, (owner, before or _LAST, state or "", most))]

    def cancel(self, owner: str, identity: str) -> JobRow | None:
        """End a job that has not begun, ask for the end of one that runs, leave one that is over; returns it then."""
        with self._writing() as database:
            whose = "owner = ? AND id = ? AND state"
            database.execute(f"{_END_CANCELLED} {whose} = 'queued'", (*self._now(), owner, identity))
            database.execute(f"UPDATE jobs SET state = 'cancelling' WHERE {whose} = 'running'", (owner, identity))
            return _job(database, owner, identity)

    def remove_job(self, owner: str, identity: str) -> JobRow | None:
        """Forget a job; returns what it was. Raises NotOverError."""
        with self._writing() as database:
            row = _job(database, owner, identity)
            if row and not row.is_over:
                raise NotOverError(row.state)
            database.execute("DELETE FROM jobs WHERE owner = ? AND id = ?", (owner, identity))
            return row

    # Jobs, for the one who runs them

    def recover(self) -> int:
        """Queue again what was running when the service ended, and end what was to; returns how many wait again."""
        with self._writing() as database:
            database.execute(f"{_END_CANCELLED} state = 'cancelling'", self._now())
            return database.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount

    def claim(self, but: Collection[str] = ()) -> JobRow | None:
        """The job whose turn it is, which is running from now on: one that was interrupted, or else the oldest of the
        owner who has waited for longest since one of theirs began. It is none of `but`.
        """
        turn = "(SELECT coalesce(max(started), 0) FROM jobs AS other WHERE other.owner = jobs.owner)"
        with self._writing() as database:
            waiting = f"state = 'queued' AND id NOT IN ({', '.join('?' * len(but))})"
            next_ = f"(SELECT id FROM jobs WHERE {waiting} ORDER BY started IS NULL, {turn}, number LIMIT 1)"
            query = f"UPDATE jobs SET state = 'running', started = coalesce(started, ?) WHERE id = {next_} RETURNING *"
            found = database.execute(query, (time.time(), *but)).fetchall()
            return job_row(found[0]) if found else None

    def state(self, identity: str) -> str | None:
        """The state of a job, None when there is no such job."""
        with self._reading() as database:
            found = database.execute("SELECT state FROM jobs WHERE id = ?", (identity,)).fetchone()
            return found and str(found["state"])

    def progress(self, identity: str, total: int | None, succeeded: int, failed: int) -> None:
        """How far a job is."""
        with self._writing() as database:
            query = "UPDATE jobs SET total = ?, succeeded = ?, failed = ? WHERE id = ?"
            database.execute(query, (total, succeeded, failed, identity))

    def requeue(self, identity: str) -> None:
        """Let a job that was interrupted wait again, or end it if that was asked for."""
        with self._writing() as database:
            database.execute(f"{_END_CANCELLED} id = ? AND state = 'cancelling'", (*self._now(), identity))
            database.execute("UPDATE jobs SET state = 'queued' WHERE id = ? AND state = 'running'", (identity,))

    def finish(self, identity: str, state: State, error: dict[str, str] | None = None) -> None:
        """A job has ended; `error` has the members `code` and `detail`."""
        with self._writing() as database:
            query = "UPDATE jobs SET finished = ?, expires = ?, state = ?, error = ? WHERE id = ?"
            database.execute(query, (*self._now(), state, error and json.dumps(error), identity))

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state."""
        with self._reading() as database:
            found = {row[0]: row[1] for row in database.execute("SELECT state, count(*) FROM jobs GROUP BY state")}
            return {state: found.get(state, 0) for state in STATES}

    # What is old

    def expire(self) -> tuple[list[FileRow], list[JobRow]]:
        """Forget the files and jobs whose time is over, but for files that a job still needs; returns them."""
        needed = f"(SELECT file FROM jobs WHERE file IS NOT NULL AND {_PENDING})"
        with self._writing() as database:
            now = time.time()
            files = database.execute(f"DELETE FROM files WHERE expires < ? AND id NOT IN {needed} RETURNING *", (now,))
            jobs = database.execute("DELETE FROM jobs WHERE expires < ? RETURNING *", (now,))
            return [file_row(each) for each in files], [job_row(each) for each in jobs]

    def identities(self) -> set[str]:
        """The ids of all files and jobs."""
        with self._reading() as database:
            return {row[0] for row in database.execute("SELECT id FROM files UNION ALL SELECT id FROM jobs")}

    def _now(self) -> tuple[float, float]:
        """When a job that ends now has ended, and when it expires."""
        now = time.time()
        return now, now + self._retention

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")  # a job that was accepted outlives a power cut
        self._migrate(path)

    def _migrate(self, path: Path) -> None:
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise StoreError(f"{path}: written by a newer isolatent; update this one, or give another directory")
            for number, script in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in script.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def open_store(settings: JobSettings) -> Store:
    """The database in the directory of jobs, which is made if it is not there. Raises StoreError."""
    try:
        settings.directory.mkdir(0o700, parents=True, exist_ok=True)
        for folder in ("files", "jobs"):
            (settings.directory / folder).mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{settings.directory}: {reason}; give a directory that the service may write") from None
    return Store(settings.directory / "jobs.sqlite", settings.retention_days * _DAY)


def _insert(database: sqlite3.Connection, table: str, row: FileRow | JobRow) -> None:
    values = columns(row)
    names = ", ".join(values)
    database.execute(f"INSERT INTO {table} ({names}) VALUES (:{', :'.join(values)})", values)


def _stored(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0])


def _file(database: sqlite3.Connection, owner: str, identity: str) -> FileRow | None:
    found = database.execute("SELECT * FROM files WHERE owner = ? AND id = ?", (owner, identity)).fetchone()
    return found and file_row(found)


def _job(database: sqlite3.Connection, owner: str, identity: str) -> JobRow | None:
    found = database.execute("SELECT * FROM jobs WHERE owner = ? AND id = ?", (owner, identity)).fetchone()
    return found and job_row(found)


def _of_key(database: sqlite3.Connection, owner: str, key: str | None) -> JobRow | None:
    found = database.execute("SELECT * FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
    return found and job_row(found)


def _same(known: JobRow, request: str) -> JobRow:
    if known.request != request:
        raise ConflictError
    return known
