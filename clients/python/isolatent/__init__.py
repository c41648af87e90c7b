"""Posteriors, embeddings and reconstructions from an isolatent service.

from isolatent import Client

with Client("http://127.0.0.1:8000") as client:
embedding = client.embed(["a.png", "b.png"])  # (2, d) float32
"""

__version__ = "0.1.0"

from isolatent._async_client import AsyncClient
from isolatent._client import Client
from isolatent._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadGatewayError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    InputError,
    InternalServerError,
    IsolatentError,
    ItemError,
    JobCancelled,
    JobError,
    JobFailed,
    JobTimeout,
    MethodNotAllowedError,
    NotAcceptableError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServiceUnavailableError,
    UnprocessableInputError,
    UnsupportedError,
    UnsupportedMediaTypeError,
)
from isolatent._jobs import Job
from isolatent._jobs_async import AsyncJob
from isolatent.types import JobItemError, JobRow, Model, Posterior, StoredFile

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncClient",
    "AsyncJob",
    "AuthenticationError",
    "BadGatewayError",
    "BadRequestError",
    "Client",
    "ConflictError",
    "DeadlineExceededError",
    "InputError",
    "InternalServerError",
    "IsolatentError",
    "ItemError",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobItemError",
    "JobRow",
    "JobTimeout",
    "MethodNotAllowedError",
    "Model",
    "NotAcceptableError",
    "NotFoundError",
    "PermissionDeniedError",
    "Posterior",
    "RateLimitError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "ServiceUnavailableError",
    "StoredFile",
    "UnprocessableInputError",
    "UnsupportedError",
    "UnsupportedMediaTypeError",
    "__version__",
]
