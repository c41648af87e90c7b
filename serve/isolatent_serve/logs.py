"""What the service says on stderr: one JSON object per line for machines, or text for people.

A line about a request carries its `request_id`, also where what is said knows nothing of requests.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The id of the request that is being answered, in its task."""

log = logging.getLogger("isolatent_serve")

_BLANK = vars(logging.LogRecord("", 0, "", 0, "", None, None))


def configure(form: LogFormat | None = None, level: LogLevel = "info") -> None:
    """Send every message of this process to stderr; None: text on a terminal, else JSON."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line has these
    handler = logging.StreamHandler(sys.stderr)
    as_text = form == "text" or (form is None and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote what clients sent
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # remarks on what clients sent
    threading.excepthook = log_thread


def say(logger: logging.Logger, level: int, message: str, fields: Mapping[str, Any]) -> None:
    """Log `message` with members beside it. Cheaper than logger.log(), which looks up who calls it, in which thread."""
    if logger.isEnabledFor(level):
        now = time.time()
        record = logging.LogRecord.__new__(logging.LogRecord)
        own = {"name": logger.name, "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
        record.__dict__ = {**_BLANK, **own, "created": now, "msecs": now % 1 * 1000, "fields": fields}
        logger.handle(record)


class JsonFormatter(logging.Formatter):
    """A record as one line: time, level, logger, message, request_id, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := current_request.get():
            line["request_id"] = request_id
        line.update(getattr(record, "fields", ()))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return to_json(line)


class TextFormatter(logging.Formatter):
    """A record as a line of text; its fields follow as JSON, so that what a client sent stays on the line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it that
        """The line before its exception."""
        fields = getattr(record, "fields", {})
        return f"{super().formatMessage(record)} {to_json(fields)}" if fields else super().formatMessage(record)


def to_json(line: Mapping[str, Any]) -> str:
    """`line` as JSON in one line, whatever is in its texts."""
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # half a surrogate pair, from a file name that is no UTF-8
        return json.dumps(line, default=str)


def log_thread(thread: threading.ExceptHookArgs) -> None:
    """What becomes of an exception that ends a thread; Python would print it."""
    if thread.exc_value is not None:
        exception = (thread.exc_type, thread.exc_value, thread.exc_traceback)
        log.critical("thread %s died", thread.thread.name if thread.thread else "?", exc_info=exception)
