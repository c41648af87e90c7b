"""OpenAI's own client, unchanged: what it sends, what it reads, its exceptions and its retries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from engine_support import busy, ready_app
from isolatent_export import Bundle
from isolatent_serve import Settings, create_app
from isolatent_serve.engine import Engine
from isolatent_serve.outputs import Array

KEY = "a-key-of-more-than-sixteen-characters"


@pytest.fixture
def ask(client: httpx2.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's client of the service; nothing is asked twice."""
    with openai.OpenAI(base_url=client.base_url.join("v1"), api_key="none", max_retries=0) as its:
        yield its


@pytest.fixture
def texts(pngs: list[bytes]) -> list[str]:
    """The seven pictures as plain base64."""
    return [base64.b64encode(png).decode() for png in pngs]


@pytest.fixture
def urls(texts: list[str]) -> list[str]:
    """The seven pictures as data URLs."""
    return [f"data:image/png;base64,{text}" for text in texts]


@pytest.fixture
def expected(client: httpx2.Client, urls: list[str]) -> list[list[float]]:
    """What /v1/embeddings answers to the seven pictures."""
    data = client.post("/v1/embeddings", json={"model": "tiny", "input": urls}).json()["data"]
    return [item["embedding"] for item in data]


def embeddings(response: openai.types.CreateEmbeddingResponse) -> Array:
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return np.array([item.embedding for item in response.data], np.float32)


def test_embeddings_come_as_base64_by_default_and_are_the_same_bits(
    ask: openai.OpenAI, urls: list[str], texts: list[str], expected: list[list[float]]
) -> None:
    raw = ask.embeddings.with_raw_response.create(model="tiny", input=urls)
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)  # the client asked for it by itself
    assert np.array_equal(embeddings(raw.parse()), np.float32(expected))
    assert np.array_equal(embeddings(ask.embeddings.create(model="tiny", input=texts)), np.float32(expected))


def test_floats_arrive_as_they_were_written(ask: openai.OpenAI, urls: list[str], expected: list[list[float]]) -> None:
    response = ask.embeddings.create(model="tiny", input=urls, encoding_format="float", dimensions=8, user="me")
    assert [item.embedding for item in response.data] == expected
    assert (response.model, response.object, response.usage.total_tokens) == ("tiny", "list", 0)


def test_one_string_is_one_input(ask: openai.OpenAI, urls: list[str], texts: list[str]) -> None:
    one, other = (ask.embeddings.create(model="tiny", input=text).data for text in (urls[0], texts[0]))
    assert len(one) == len(other) == 1
    assert one[0].embedding == other[0].embedding


def test_requests_have_an_id_that_the_client_shows(ask: openai.OpenAI, urls: list[str]) -> None:
    headers = {"X-Request-Id": "order-66"}
    assert ask.embeddings.create(model="tiny", input=urls[0], extra_headers=headers)._request_id == "order-66"
    raw = ask.embeddings.with_raw_response.create(model="tiny", input=urls[0])
    assert len(raw.request_id or "") == 32
    with pytest.raises(openai.NotFoundError) as caught:
        ask.embeddings.create(model="big", input=urls[0], extra_headers=headers)
    assert caught.value.request_id == "order-66"


def test_the_async_client_works_the_same(client: httpx2.Client, urls: list[str], expected: list[list[float]]) -> None:
    async def create() -> list[openai.types.CreateEmbeddingResponse]:
        async with openai.AsyncOpenAI(base_url=client.base_url.join("v1"), api_key="none") as its:
            assert [model.id async for model in its.models.list()] == ["tiny", "tiny-colour", "tiny-cloud"]
            return await asyncio.gather(*(its.embeddings.create(model="tiny", input=[url]) for url in urls))

    alone = np.concatenate([embeddings(response) for response in asyncio.run(create())])
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_models_are_listed_and_retrieved(ask: openai.OpenAI) -> None:
    models = ask.models.list().data
    assert [model.id for model in models] == ["tiny", "tiny-colour", "tiny-cloud"]
    one = ask.models.retrieve("tiny-cloud")
    assert (one.id, one.object, one.owned_by, one.created) == ("tiny-cloud", "model", "isolatent", models[2].created)
    with pytest.raises(openai.NotFoundError, match="served are: tiny") as caught:
        ask.models.retrieve("big")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("arguments", "kind", "code", "param"),
    [
        ({"model": "big"}, openai.NotFoundError, "model_not_found", None),
        ({"dimensions": 7}, openai.BadRequestError, "invalid_option", "dimensions"),
        ({"encoding_format": "hex"}, openai.BadRequestError, "unknown_encoding_format", "encoding_format"),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, "unknown_field", "colour"),
        ({"input": "https://example.com/a.png"}, openai.BadRequestError, "urls_refused", "input"),
        ({"input": "two words"}, openai.UnprocessableEntityError, "undecodable", "input"),
        ({"input": [5, 6, 7]}, openai.UnprocessableEntityError, None, "input"),  # tokens
        ({"input": []}, openai.UnprocessableEntityError, "empty_input", "input"),
    ],
)
def test_errors_have_the_clients_types(
    ask: openai.OpenAI,
    urls: list[str],
    arguments: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str | None,
    param: str | None,
) -> None:
    with pytest.raises(kind) as caught:
        ask.embeddings.create(**{"model": "tiny", "input": urls} | arguments)
    assert code in (None, caught.value.code)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] in str(caught.value)


def test_keys_are_checked_with_the_clients_own_exception(bundle_path: Path, tmp_path: Path, urls: list[str]) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"someone:{KEY}\n")
    keys.chmod(0o600)

    async def check() -> None:
        async with running(Settings(device="cpu", keys=keys), bundle_path) as (its, _):
            with pytest.raises(openai.AuthenticationError, match="no such key") as caught:
                await its.embeddings.create(model="tiny", input=urls)
            with pytest.raises(openai.AuthenticationError):
                await its.models.list()
            known = its.with_options(api_key=KEY)
            assert len((await known.embeddings.create(model="tiny", input=urls)).data) == 7
        assert caught.value.code == "invalid_key"

    asyncio.run(check())


@contextlib.asynccontextmanager
async def running(settings: Settings, path: Path) -> AsyncIterator[tuple[openai.AsyncOpenAI, Engine]]:
    """The app, ready, with OpenAI's client of it, and the engine of its model."""
    async with ready_app(settings, path) as (_, http, engine):
        yield openai.AsyncOpenAI(base_url="http://x/v1", api_key="unknown", max_retries=0, http_client=http), engine


def test_a_full_queue_is_a_rate_limit_and_is_tried_again_when_the_service_says(
    bundle_path: Path, urls: list[str]
) -> None:
    async def check() -> None:
        settings = Settings(device="cpu", queue_items=4)
        async with running(settings, bundle_path) as (its, engine), busy(engine, 4, 0.5):
            with pytest.raises(openai.RateLimitError, match="4 inputs wait") as caught:
                await its.embeddings.create(model="tiny", input=urls[0])
            began = time.monotonic()
            patient = its.with_options(max_retries=5)
            raw = await patient.embeddings.with_raw_response.create(model="tiny", input=urls[0])
        assert (caught.value.code, caught.value.response.headers["Retry-After"]) == ("queue_full", "1")
        assert raw.retries_taken == 1
        assert time.monotonic() - began > 0.99

    asyncio.run(check())


def test_a_service_that_starts_is_tried_again(bundle_path: Path, urls: list[str]) -> None:
    async def check() -> None:
        app = create_app(Settings(device="cpu"), [Bundle.open(bundle_path)])
        async with (
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
            openai.AsyncOpenAI(base_url="http://x/v1", api_key="none", max_retries=30, http_client=http) as its,
        ):
            with pytest.raises(openai.InternalServerError, match="being verified") as caught:
                await its.with_options(max_retries=0).embeddings.create(model="tiny", input=urls[0])
            async with app.router.lifespan_context(app):
                raw = await its.embeddings.with_raw_response.create(model="tiny", input=urls[0])
        assert (caught.value.status_code, caught.value.code) == (503, "not_ready")
        assert raw.retries_taken >= 1

    asyncio.run(check())
