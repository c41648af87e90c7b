"""The exceptions as values."""

from __future__ import annotations

import copy
import pickle

import pytest

import isolatent
from isolatent import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    InputError,
    IsolatentError,
    ItemError,
    JobError,
    _errors,
)
from isolatent._errors import status_error

KINDS = [kind for kind in vars(isolatent).values() if isinstance(kind, type) and issubclass(kind, IsolatentError)]


def make(kind: type[IsolatentError]) -> IsolatentError:
    if issubclass(kind, APIStatusError):
        errors = (ItemError(3, "input 3 (c.png)", "/input/3", "broken"),)
        problem = {"code": "undecodable", "errors": [{"pointer": "/input/3"}]}
        about = {"inputs": ("c.png",), "indices": (3,), "request_id": "r"}
        return kind("no", status=422, url="http://x", problem=problem, errors=errors, retry_after=1.5, **about)
    if issubclass(kind, APIConnectionError | APIResponseError):
        return kind("no", url="http://x", inputs=("c.png",), indices=(3,), request_id="r")
    if issubclass(kind, JobError):
        counts = {"succeeded": 3, "failed": 1, "total": 9}
        about = {"inputs": ("c.png",), "indices": (3,), "request_id": "r"}
        return kind("no", job_id="job-1", state="running", code="input_refused", **counts, **about)
    return kind("no", inputs=("c.png",), indices=(3,), request_id="r")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_every_error_pickles_and_copies_whole(kind, clone) -> None:  # type: ignore[no-untyped-def]
    error = make(kind)
    twin = clone(error)
    assert type(twin) is kind
    assert twin.__dict__ == error.__dict__
    assert (twin.inputs, twin.indices, twin.request_id) == (("c.png",), (3,), "r")
    assert str(twin) == "no"
    assert twin.args == error.args


def test_the_tree_is_as_drawn() -> None:
    assert issubclass(isolatent.APITimeoutError, APIConnectionError)
    assert issubclass(InputError, ValueError)
    assert all(issubclass(kind, IsolatentError) for kind in KINDS)
    drawn = set((_errors.__doc__ or "").split())
    assert {kind.__name__ for kind in KINDS} <= drawn


@pytest.mark.parametrize("kind", APIStatusError.__subclasses__())
def test_every_status_class_is_exported_and_found_by_its_status(kind: type[APIStatusError]) -> None:
    assert kind.expected_status is not None
    assert status_error(kind.expected_status) is kind
    assert getattr(isolatent, kind.__name__) is kind


def test_a_status_without_a_class_of_its_own_is_the_base_class() -> None:
    assert status_error(418) is APIStatusError


def test_the_code_comes_from_the_problem() -> None:
    assert APIStatusError("no", status=404, url="u", problem={"code": "model_not_found"}).code == "model_not_found"
    assert APIStatusError("no", status=404, url="u").code is None
