"""Everything the client raises.

    IsolatentError
    ├── InputError (also a ValueError)         an input that cannot be sent
    ├── UnsupportedError                       what the backend cannot do; nothing was sent
    ├── APIConnectionError                     no answer: refused, dropped, unknown host
    │   └── APITimeoutError                    no answer within the client's timeout
    ├── APIResponseError                       an answer that is not what the service promises
    ├── JobError                               a job that has no results to give
    │   ├── JobFailed                          it could not be done
    │   ├── JobCancelled                       somebody cancelled it
    │   └── JobTimeout                         it is not over yet
    └── APIStatusError                         an answer that says no; one subclass per status
        ├── BadRequestError            400         ├── UnsupportedMediaTypeError  415
        ├── AuthenticationError        401         ├── UnprocessableInputError    422
        ├── PermissionDeniedError      403         ├── RateLimitError             429
        ├── NotFoundError              404         ├── InternalServerError        500
        ├── MethodNotAllowedError      405         ├── BadGatewayError            502
        ├── NotAcceptableError         406         ├── ServiceUnavailableError    503
        ├── RequestTimeoutError        408         └── DeadlineExceededError      504
        ├── ConflictError              409
        └── RequestTooLargeError       413

Every one of them pickles and copies with all its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack


@dataclass(frozen=True)
class ItemError:
    """What is wrong with one input. `index` counts from 0 over all the inputs of the call, `name` is its file name."""

    index: int | None
    name: str | None
    pointer: str
    """JSON pointer into the request that failed, as the service gave it."""
    detail: str

    def __str__(self) -> str:
        return f"{self.name or self.pointer}: {self.detail}"


class About(TypedDict, total=False):
    """What every error may say of the request that it is about."""

    inputs: tuple[str, ...]
    indices: tuple[int, ...]
    request_id: str | None


class IsolatentError(Exception):
    """Base of everything the client raises.

    `inputs` names the inputs of the request that failed, in order, and `indices` are their places, from 0, among all
    the inputs of the call. `request_id` is the service's name for the request, as in its log, None where nothing was
    sent.
    """

    def __init__(self, message: str, **about: Unpack[About]) -> None:
        super().__init__(message)
        self.message = message
        self.inputs = about.get("inputs", ())
        self.indices = about.get("indices", ())
        self.request_id = about.get("request_id")

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:  # by state: the constructors take more than `args`
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[IsolatentError], args: tuple[Any, ...], state: dict[str, Any]) -> IsolatentError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(IsolatentError, ValueError):
    """An input that cannot be sent. The message says what was given and what is allowed."""


class UnsupportedError(IsolatentError):
    """What the program behind `backend` cannot do. Nothing was sent; the message names one that can."""


class APIConnectionError(IsolatentError):
    """No answer came: nothing listens there, the name is unknown, or the connection broke. `url` is what was asked."""

    def __init__(self, message: str, *, url: str, **about: Unpack[About]) -> None:
        super().__init__(message, **about)
        self.url = url


class APITimeoutError(APIConnectionError):
    """No answer came within the client's timeout, all attempts and waits together."""


class APIResponseError(IsolatentError):
    """An answer came and is not what the service promises: another program, a proxy's page, or a cut body."""

    def __init__(self, message: str, *, url: str, **about: Unpack[About]) -> None:
        super().__init__(message, **about)
        self.url = url


class APIStatusError(IsolatentError):
    """An answer with a status that says no.

    `problem` is the problem document (RFC 9457) as a dict, empty when the answer carried none; `errors` says what is
    wrong with which input; `retry_after` is in seconds, None when the service gave none.
    """

    expected_status: ClassVar[int | None] = None

    def __init__(
        self,
        message: str,
        *,
        status: int,
        url: str,
        problem: Mapping[str, Any] | None = None,
        errors: tuple[ItemError, ...] = (),
        retry_after: float | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(message, **about)
        self.status = status
        self.url = url
        self.problem = dict(problem or {})
        self.errors = errors
        self.retry_after = retry_after

    @property
    def code(self) -> str | None:
        """The service's stable name for what went wrong, such as `model_not_found`."""
        code = self.problem.get("code")
        return code if isinstance(code, str) else None


class BadRequestError(APIStatusError):
    """400: the request is malformed, or says too little (`model_required`)."""

    expected_status = 400


class AuthenticationError(APIStatusError):
    """401: the service wants a key, or another one."""

    expected_status = 401


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""

    expected_status = 403


class NotFoundError(APIStatusError):
    """404: no such model or page; the message lists what there is."""

    expected_status = 404


class MethodNotAllowedError(APIStatusError):
    """405: the page exists and does not take this method."""

    expected_status = 405


class NotAcceptableError(APIStatusError):
    """406: the service does not write the format asked for."""

    expected_status = 406


class RequestTimeoutError(APIStatusError):
    """408: the service waited too long for the request's body."""

    expected_status = 408


class ConflictError(APIStatusError):
    """409: the request does not fit the present state."""

    expected_status = 409


class RequestTooLargeError(APIStatusError):
    """413: too many bytes, pixels or items; the message names the limit."""

    expected_status = 413


class UnsupportedMediaTypeError(APIStatusError):
    """415: the service does not read this kind of body."""

    expected_status = 415


class UnprocessableInputError(APIStatusError):
    """422: an input does not decode or has the wrong shape; `errors` says which."""

    expected_status = 422


class RateLimitError(APIStatusError):
    """429: too many requests; `retry_after` says how long to wait."""

    expected_status = 429


class InternalServerError(APIStatusError):
    """500: the service failed; its log has the line with `request_id`."""

    expected_status = 500


class BadGatewayError(APIStatusError):
    """502: a proxy reached no service behind it."""

    expected_status = 502


class ServiceUnavailableError(APIStatusError):
    """503: the service is starting, draining or full; `retry_after` says how long to wait."""

    expected_status = 503


class DeadlineExceededError(APIStatusError):
    """504: the service could not answer within its own deadline."""

    expected_status = 504


class JobError(IsolatentError):
    """A job that has no results to give, or not all of them.

    `job_id` and `state` are those of the job, `succeeded`, `failed` and `total` its counts of inputs (`total` is None
    before they are listed). `client.jobs.get(job_id)` finds the job again.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        state: str,
        succeeded: int = 0,
        failed: int = 0,
        total: int | None = None,
        code: str | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(message, **about)
        self.job_id = job_id
        self.state = state
        self.succeeded = succeeded
        self.failed = failed
        self.total = total
        self.code = code
        """The service's stable name for why a job failed."""


class JobFailed(JobError):  # noqa: N818 - the state that the job is in
    """A job that could not be done; the message says why. Results of finished parts are kept."""


class JobCancelled(JobError):  # noqa: N818
    """A job that was cancelled. Results of finished parts are kept."""


class JobTimeout(JobError):  # noqa: N818
    """A job that is not over within the time that was to be waited. It goes on; wait again."""


def status_error(status: int) -> type[APIStatusError]:
    """The class for a status, APIStatusError where none is more precise."""
    return next((kind for kind in APIStatusError.__subclasses__() if kind.expected_status == status), APIStatusError)
