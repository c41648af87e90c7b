"""AsyncClient has the methods of Client, and so have its jobs and files: same names, signatures and words, awaited."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

import pytest

from isolatent import AsyncClient, AsyncJob, Client, Job
from isolatent._files import AsyncFiles, Files
from isolatent._jobs import Jobs
from isolatent._jobs_async import AsyncJobs

TWINS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
METHODS = [
    name for name, value in vars(Client).items() if inspect.isfunction(value) and (name[0] != "_" or name in TWINS)
]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def shape(function: Any) -> list[tuple[str, Any, Any, str]]:
    """Names, kinds, defaults and annotations of parameters, and the result, as in the synchronous client."""
    signature = inspect.signature(function)
    rows = [(each.name, each.kind, each.default, plain(each.annotation)) for each in signature.parameters.values()]
    return [*rows, ("return", None, None, plain(signature.return_annotation))]


def plain(annotation: object) -> str:
    return re.sub(r" \| AsyncIterable\[Input\]|\bAsync(?=Iterator|Client|Job|Files|Driver)", "", str(annotation))


def test_both_offer_the_same() -> None:
    assert public(AsyncClient) == public(Client)
    assert len(METHODS) > 15


@pytest.mark.parametrize("name", [*METHODS, "__init__"])
def test_signatures_and_docstrings_agree(name: str) -> None:
    one, other = getattr(Client, name), getattr(AsyncClient, TWINS.get(name, name))
    assert shape(one) == shape(other)
    assert one.__doc__ == other.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_an_iterator_is_awaited(name: str) -> None:
    twin = getattr(AsyncClient, TWINS.get(name, name))
    assert inspect.iscoroutinefunction(twin) is not name.startswith("iter_")


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("iter_")])
def test_overloads_agree(name: str) -> None:
    ones, others = (typing.get_overloads(getattr(kind, name)) for kind in (Client, AsyncClient))
    assert len(ones) == 2
    assert [shape(each) for each in ones] == [shape(each) for each in others]


PAIRS = [(Jobs, AsyncJobs), (Job, AsyncJob), (Files, AsyncFiles)]
OF_PAIRS = [
    (one, other, name) for one, other in PAIRS for name, value in vars(one).items() if inspect.isfunction(value)
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_jobs_and_files_offer_the_same(one: type, other: type) -> None:
    assert public(one) == public(other)
    assert Client.jobs.__doc__ == AsyncClient.jobs.__doc__
    assert Client.files.__doc__ == AsyncClient.files.__doc__


@pytest.mark.parametrize(("one", "other", "name"), OF_PAIRS)
def test_methods_of_jobs_and_files_agree(one: type, other: type, name: str) -> None:
    mine, its = getattr(one, name), getattr(other, name)
    assert shape(mine) == shape(its)
    assert mine.__doc__ == its.__doc__
    is_awaited = inspect.iscoroutinefunction(its) or inspect.isasyncgenfunction(its)
    assert is_awaited is (name != "__init__")
