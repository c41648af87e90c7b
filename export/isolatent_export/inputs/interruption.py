"""Work on a thread that nobody waits for any more stops between one input and the next.

Threads cannot be ended from outside: long loops call `check`, and whoever runs them has the flag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_thread = threading.local()


class Interrupted(Exception):  # noqa: N818 - nothing went wrong, and nobody is there to hear of it
    """The result is not wanted any more."""


class Flag:
    """Raised from any thread."""

    def __init__(self) -> None:
        self.raised = False


def run(flag: Flag, function: Callable[..., T], *arguments: object) -> T:
    """`function` on this thread, until `flag` is raised. Raises Interrupted, and what it raises."""
    _thread.flag = flag
    try:
        check()
        return function(*arguments)
    finally:
        _thread.flag = None


def check() -> None:
    """Raise Interrupted when what this thread does is not wanted any more."""
    flag = getattr(_thread, "flag", None)
    if flag is not None and flag.raised:
        raise Interrupted
