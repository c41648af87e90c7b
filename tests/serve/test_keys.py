"""Bearer keys: on every address but the probes, from a file that may change, and never in a log."""

from __future__ import annotations

import base64
import hmac
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from isolatent import AuthenticationError, Client
from isolatent.cli import main
from isolatent_serve import Settings, keys
from isolatent_serve.keys import Key, KeyFile, KeysError
from serve_support import running, serving, wait_until_ready

KEY, OTHER = "isl_" + "k" * 43, "isl_" + "o" * 43
PNG = {"Content-Type": "image/png"}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the key KEY of `alice`."""
    return write(tmp_path / "keys", f"alice:{KEY}")


@pytest.fixture(scope="module")
def url(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that knows two keys, one by its hash."""
    path = write(
        tmp_path_factory.mktemp("keys") / "keys", "# ours", "", f"alice:{KEY}", f"bob:sha256:{keys.digest(OTHER).hex()}"
    )
    with running(Settings(device="cpu", threads=1, keys=path), bundle_path) as url:
        yield url


def test_every_address_but_the_probes_wants_a_key(url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json", headers=bearer(KEY)).json()
    asked = [(method, path) for path, methods in document["paths"].items() for method in methods]
    asked += [("get", path) for path in ("/docs", "/redoc", "/openapi.json", "/nowhere", "/healthz/", "//healthz")]
    for method, path in asked:
        expected = 200 if path in ("/healthz", "/readyz") else 401
        assert httpx2.request(method, f"{url}{path}").status_code == expected, path
    assert ("get", "/metrics") in asked


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_known_key_opens(url: str, key: str, scheme: str) -> None:
    assert httpx2.get(f"{url}/v1/models", headers={"Authorization": f"{scheme} {key}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {base64.b64encode(KEY.encode()).decode()}"},
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
        {"X-Api-Key": KEY},
    ],
)
def test_no_key_is_asked_for_one(url: str, headers: dict[str, str]) -> None:
    response = httpx2.get(f"{url}/v1/models?api_key={KEY}", headers=headers)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    problem = response.json()
    assert (problem["code"], response.headers["Content-Type"]) == ("missing_key", "application/problem+json")


@pytest.mark.parametrize("key", [KEY[:-1], KEY + "k", KEY.upper(), "alice", keys.digest(OTHER).hex(), "é" * 20])
def test_a_wrong_key_is_refused(url: str, key: str) -> None:
    response = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}".encode()})
    assert (response.status_code, response.json()["code"]) == (401, "invalid_key")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert key not in response.text


def test_the_refusal_comes_before_the_body(url: str) -> None:
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(b"POST /v1/posteriors HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_our_client_sends_its_key_and_names_a_wrong_one(url: str, png: bytes) -> None:
    with Client(url, api_key=KEY) as client:
        assert client.embed([png]).shape == (1, 8)
    with Client(url, api_key=OTHER[:-1]) as client:
        assert client.ready()
        with pytest.raises(AuthenticationError) as caught:
            client.embed([png])
    assert (caught.value.status, caught.value.code) == (401, "invalid_key")


def test_openais_client_sends_its_key_and_names_a_wrong_one(url: str, png: bytes) -> None:
    item = base64.b64encode(png).decode()
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        assert len(client.embeddings.create(model="tiny", input=item).data[0].embedding) == 8
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.embeddings.create(model="tiny", input=item)
        assert caught.value.code == "invalid_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_refusals_are_counted(url: str) -> None:
    httpx2.get(f"{url}/v1/models", headers=bearer("unknown"))
    text = httpx2.get(f"{url}/metrics", headers=bearer(KEY)).text
    assert 'isolatent_rejections_total{code="invalid_key"}' in text


def test_a_key_is_compared_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Key(name, keys.digest(name)) for name in ("first", "second", "third")]
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given, name in (("first", "first"), ("third", "third"), ("none", None)):
        compared.clear()
        assert keys.find(known, given) == name
        assert compared == [(keys.digest(given), key.digest) for key in known]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alice", "expected NAME:KEY"),
        (f"al ice:{KEY}", "expected NAME:KEY"),
        ("alice:secret", "16 to 512 visible"),
        ("alice:" + "with space " * 3, "16 to 512 visible"),
        ("alice:sha256:" + "0" * 63, "64 hexadecimal digits"),
        (f"bob:{KEY}\nalice:{KEY}", "line 2: its name or its key was there before"),
        (f"alice:{KEY}\nalice:{OTHER}", "line 2: its name or its key was there before"),
        ("# only a remark", "isolatent keys new"),
    ],
)
def test_a_file_that_is_not_in_order_is_refused_without_quoting_it(file: Path, line: str, said: str) -> None:
    file.write_text(line)
    with pytest.raises(KeysError, match=said) as caught:
        KeyFile(file)
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_read_or_change_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(KeysError, match=f"chmod 640 {file}"):
        KeyFile(file)
    file.chmod(0o640)
    assert KeyFile(file).find(KEY) == "alice"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        KeyFile(tmp_path / "nowhere")


def test_a_changed_file_counts_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0)
    known = KeyFile(file)
    write(file, f"bob:{OTHER}", "# and no more")
    assert (known.find(KEY), known.find(OTHER)) == (None, "bob")
    replaced = write(file.with_name("new"), f"alice:{KEY}")
    replaced.rename(file)
    assert (known.find(KEY), known.find(OTHER)) == ("alice", None)


@pytest.mark.parametrize("broken", ["", "alice:short", None])
def test_a_broken_file_keeps_the_old_keys_and_says_so(
    file: Path, broken: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0)
    known = KeyFile(file)
    file.unlink() if broken is None else file.write_text(broken)
    assert [known.find(KEY) for _ in range(3)] == ["alice"] * 3
    (said,) = caplog.messages  # once, not at each request
    assert said.endswith("the old keys stay in use")


def test_the_real_command_takes_a_rotated_key_and_logs_names_only(bundle_path: Path, file: Path) -> None:
    with serving(bundle_path, "--host", "0.0.0.0", "--keys", str(file)) as (process, line):
        url = line.split()[-1].replace("0.0.0.0", "127.0.0.1")
        wait_until_ready(url)
        assert httpx2.get(f"{url}/v1/models", headers=bearer(KEY)).status_code == 200
        write(file, f"bob:{OTHER}")
        process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if httpx2.get(f"{url}/v1/models", headers=bearer(OTHER)).status_code == 200:
                break
            time.sleep(0.05)
        assert httpx2.get(f"{url}/v1/models", headers=bearer(KEY)).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        text = process.stderr.read()
    lines = [json.loads(line) for line in text.splitlines()]
    asked = [(line.get("key"), line["status"]) for line in lines if line["logger"] == "isolatent_serve.access"]
    assert asked[0] == ("alice", 200)
    assert asked[-2:] == [("bob", 200), (None, 401)]
    assert KEY not in text
    assert OTHER not in text
    assert "authentication" not in text  # the warning of a service that everyone can use


def test_reloading_reads_the_file_whatever_it_looks_like(file: Path) -> None:
    known = KeyFile(file)
    before = file.stat()
    file.write_text(f"alice:{OTHER}\n")  # as long as the line before
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known.find(KEY) == "alice"
    known.reload()
    assert known.find(OTHER) == "alice"


def test_a_file_of_keys_that_is_none_ends_the_command(
    bundle_path: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o644)
    monkeypatch.setenv("ISOLATENT_KEYS_FILE", str(file))
    assert main(["serve", str(bundle_path), "--port", "0", "--device", "cpu"]) == 1
    assert "chmod 640" in capsys.readouterr().err


def test_a_new_key_is_shown_once_and_known_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    assert main(["keys", "new", "alice", "--file", str(file), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert KeyFile(file).find(made["key"]) == "alice"
    assert made["key"] not in file.read_text()
    assert main(["keys", "new", "alice", "--file", str(file)]) == 1
    assert "was there before" in capsys.readouterr().err
    assert main(["keys", "new", "bob", "--file", str(file)]) == 0
    key, line = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
    assert line in file.read_text().splitlines()
    assert KeyFile(file).find(key) == "bob"


def test_a_name_that_no_file_takes_gets_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "no spaces"]) == 1
    assert "A-Za-z0-9._-" in capsys.readouterr().err
