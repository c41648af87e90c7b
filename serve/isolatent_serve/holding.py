"""How many bytes of request bodies the process holds at a time, from their arrival to the end of the answer."""

from __future__ import annotations

from isolatent_serve.problems import Problem

_RETRY_SECONDS = 1


class Holding:
    """Counts the bytes of all requests together against one limit, each as they arrive: announced ones cost nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes. Raises Problem `queue_full`, and does not count them, when they are too many.

        When nothing else is held, everything fits: what one request may send is bounded elsewhere.
        """
        if self.held and self.held + size > self._most:
            detail = (
                f"the bodies of all requests in hand would take more than {self._most} bytes; "
                f"try again in {_RETRY_SECONDS} s, or send fewer inputs at a time"
            )
            raise Problem("queue_full", detail, headers={"Retry-After": str(_RETRY_SECONDS)})
        self.held += size

    def release(self, size: int) -> None:
        """Count `size` bytes less."""
        self.held -= size
