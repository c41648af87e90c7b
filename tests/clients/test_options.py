"""Where the address and the key come from, and what is refused."""

from __future__ import annotations

import pytest

from isolatent import Client
from isolatent._options import LONGEST


def test_the_default_address_is_the_local_service() -> None:
    with Client() as client:
        assert client.base_url == "http://127.0.0.1:8000"


def test_the_environment_gives_address_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", "http://elsewhere:9000/")
    monkeypatch.setenv("ISOLATENT_API_KEY", "from-env")
    with Client() as client:
        assert client.base_url == "http://elsewhere:9000"
        assert client._options.authorization == {"Authorization": "Bearer from-env"}


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_BASE_URL", "http://elsewhere:9000")
    monkeypatch.setenv("ISOLATENT_API_KEY", "from-env")
    with Client("https://here/below", api_key="given") as client:
        assert client.base_url == "https://here/below"
        assert client._options.api_key == "given"


def test_an_empty_environment_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATENT_API_KEY", "")
    with Client() as client:
        assert client._options.authorization == {}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8000", "is no address; write it as http://127.0.0.1:8000"),
        ("ftp://here", "is no address"),
        ("http://", "is no address"),
        ("http://here:port", "is no address"),
        ("http://user:pass@here", "pass the key as api_key"),
        ("http://here/?key=1", "query or fragment"),
    ],
)
def test_an_unusable_address_is_refused_with_the_remedy(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Client(url)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\n", "schlüssel", "\x00"])
def test_a_key_that_no_header_carries_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"max_retries": -1}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Client(**options)  # type: ignore[arg-type]


def test_the_longest_timeout_is_one_that_sockets_take(service_url: str) -> None:
    with pytest.raises(ValueError, match=f"{LONGEST} \\(11 days\\) at most"):
        Client(timeout=LONGEST + 1)
    with Client(service_url, timeout=LONGEST) as client:
        assert client.ready()
