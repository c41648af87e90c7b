"""The options of an inference request: members of the body or query parameters; the body's win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import QueryParams

from isolatent_export.manifest import Manifest
from isolatent_serve.outputs import Output
from isolatent_serve.problems import Problem

COMMON = frozenset({"model", "encoding_format", "on_error"})

MOST_SAMPLES = 32

_TEXT_LIMIT = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a request wants to be answered."""

    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    on_error: Literal["request", "item"] = "request"
    dimensions: int | None = None
    samples: int = 5


_NONE_GIVEN = Options()


def read(query: bytes, fields: Mapping[str, Any], output: Output) -> Options:
    """Merge the parameters in `query` and the body's `fields`; null counts as not given.

    Raises Problem: `unknown_field`, `unknown_encoding_format`, `invalid_option`.
    """
    if not fields and not query:
        return _NONE_GIVEN
    known = COMMON | output.options
    parameters = QueryParams(query)
    for name in parameters:
        if name not in known:
            raise _unknown(f"query parameter {name[:80]!r}", known)
    for name in fields:
        if name not in known:
            raise _unknown(f"field {name[:80]!r}", known, pointer=_pointer(name))
    given = {**parameters, **{name: value for name, value in fields.items() if value is not None}}
    return Options(
        model=_text(given, "model"),
        encoding_format=_choice(given, "encoding_format", ("float", "base64"), "unknown_encoding_format"),
        on_error=_choice(given, "on_error", ("request", "item"), "invalid_option"),
        dimensions=_whole_number(given, "dimensions"),
        samples=_samples(given),
    )


def require_dimensions(chosen: Options, manifest: Manifest) -> None:
    """Raise Problem `invalid_option` when more or fewer numbers are asked for than the model's latents have."""
    if chosen.dimensions not in (None, manifest.latent.size):
        detail = f"dimensions: {manifest.name} has {manifest.latent.size}, and no other number; leave it out"
        raise Problem("invalid_option", detail, errors=[("/dimensions", detail)])


def _unknown(what: str, known: frozenset[str], pointer: str | None = None) -> Problem:
    detail = f"{what} is not known here; known are {', '.join(sorted(known))} and the body's input"
    return Problem("unknown_field", detail, errors=[(pointer, detail)] if pointer else ())


def _pointer(name: str) -> str:
    return "/" + name[:80].replace("~", "~0").replace("/", "~1")


def _invalid(name: str, expected: str, code: str = "invalid_option") -> Problem:
    detail = f"{name}: expected {expected}; correct it or leave it out"
    return Problem(code, detail, errors=[(f"/{name}", detail)])


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None or (isinstance(value, str) and len(value) <= _TEXT_LIMIT):
        return value
    raise _invalid(name, f"a string of at most {_TEXT_LIMIT} characters")


def _choice(given: Mapping[str, Any], name: str, choices: tuple[Any, Any], code: str) -> Any:
    value = given.get(name, choices[0])
    if value not in choices:
        raise _invalid(name, " or ".join(choices), code)
    return value


def _whole_number(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if value is None or type(value) is int:
        return value
    raise _invalid(name, "a whole number")


def _samples(given: Mapping[str, Any]) -> int:
    value = _whole_number(given, "samples")
    if value is None:
        return Options.samples
    if 1 <= value <= MOST_SAMPLES:
        return value
    raise _invalid("samples", f"a whole number from 1 to {MOST_SAMPLES}")
