"""What a client talks to: the service of this project, or TorchServe. A backend is two translations, without I/O."""

from __future__ import annotations

from typing import Literal, Protocol

from isolatent import _torchserve
from isolatent._answers import Answer
from isolatent._options import BASE_URL
from isolatent._wire import Call

Backend = Literal["isolatent", "torchserve"]


class Dialect(Protocol):
    """How a program speaks, compared with docs/http-api.md."""

    base_url: str
    """Where it listens unless told otherwise."""

    def request(self, call: Call) -> Call:
        """What to send for `call`. Raises UnsupportedError for what the program cannot do."""

    def answer(self, answer: Answer, call: Call) -> Answer:
        """What came back for `call`, as the service would have put it."""


class _Isolatent:
    """The service itself: nothing to translate."""

    base_url = BASE_URL

    def request(self, call: Call) -> Call:
        return call

    def answer(self, answer: Answer, call: Call) -> Answer:  # noqa: ARG002 - the same for every call
        return answer


_DIALECTS: dict[str, Dialect] = {"isolatent": _Isolatent(), "torchserve": _torchserve.TorchServe()}

BACKENDS = tuple(_DIALECTS)


def dialect(backend: str) -> Dialect:
    """The dialect of a backend. Raises ValueError with the names there are."""
    if backend not in _DIALECTS:
        raise ValueError(f"backend={backend!r}, expected {' or '.join(BACKENDS)}")
    return _DIALECTS[backend]
