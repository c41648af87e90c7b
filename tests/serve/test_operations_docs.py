"""docs/operations.md and deploy/: their options and metrics exist, and nginx passes requests on as they say."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from isolatent.cli import main
from isolatent_serve import Settings
from isolatent_serve.metrics import Metrics
from isolatent_serve.problems import PROBLEMS
from serve_support import running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
DEPLOYED = {path.name: path.read_text() for path in sorted((ROOT / "deploy").iterdir())}
KEY = "isl_" + "k" * 43
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; run: apt-get install nginx-light")


@pytest.fixture
def offered(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options of `isolatent serve`."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help", "--version"}


def test_the_options_are_those_of_the_command(offered: set[str]) -> None:
    table = PAGE.partition("## Options")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(--[a-z-]+)`", table)) == offered


def test_what_is_deployed_uses_options_that_there_are(offered: set[str]) -> None:
    commands = [
        line for text in DEPLOYED.values() for line in text.splitlines() if '"serve"' in line or " serve " in line
    ]
    used = {option for line in commands for option in re.findall(r"--[a-z][a-z-]+", line)}
    assert {"--models", "--keys", "--host", "--log-format", "--device"} <= used <= offered


def test_every_metric_that_is_named_is_there() -> None:
    metrics = Metrics()
    metrics.model("tiny", "1", "CPUExecutionProvider", "the only one")
    metrics.request("GET", "/healthz", 200, 0.1)
    metrics.batch("tiny", 1, 0.1)
    metrics.queue("tiny", 0)
    metrics.refused("tiny", 0)
    there = set(re.findall(r"^(\w+)[{ ]", metrics.render().decode(), re.MULTILINE))
    there |= set(re.findall(r"^# TYPE (\w+)", metrics.render().decode(), re.MULTILINE))
    named = re.compile(r"\b(?:isolatent|process)_(?!clients|tls|request_id)[a-z_]*[a-z]\b")
    texts = [PAGE.partition("## Metrics")[2].partition("\n## ")[0], DEPLOYED["alerts.yml"]]
    found = {name for text in texts for name in named.findall(text)}
    assert len(found) > 8
    assert found <= there


def test_every_code_that_is_named_is_there() -> None:
    table = PAGE.partition("## Overload")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, re.MULTILINE)
    for status, codes in rows:
        for code in re.findall(r"`(\w+)`", codes):
            assert PROBLEMS[code][0] == int(status)
    alerts = {code for group in re.findall(r'code=~?"([\w|.*]+)"', DEPLOYED["alerts.yml"]) for code in group.split("|")}
    assert all(any(re.fullmatch(code, each) for each in PROBLEMS) for code in alerts)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Iterator[httpx2.Client]:
    """A client of nginx with our configuration, but for names, ports and the time for heads; the service has keys."""
    folder = tmp_path_factory.mktemp("nginx")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"alice:{KEY}\n")
    with running(Settings(device="cpu", threads=1, keys=keys), bundle_path) as url, nginx(folder, url) as proxy:
        context = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        with httpx2.Client(base_url=proxy, verify=context, timeout=60) as client:
            yield client


@contextlib.contextmanager
def nginx(folder: Path, url: str) -> Iterator[str]:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    port = free_port()
    text = DEPLOYED["nginx.conf"]
    for ours, theirs in (
        ("127.0.0.1:8000", urlsplit(url).netloc),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("embeddings.example.com", "localhost"),
        ("/etc/ssl/isolatent", str(folder)),
        ("client_header_timeout 10s", "client_header_timeout 1s"),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    (folder / "isolatent.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        f" http {{ access_log off; {temporary} include {folder}/isolatent.conf; }}"
    )
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command) as process:
        wait_until_open(port)
        yield f"https://localhost:{port}"
        process.terminate()


def wait_until_open(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("nginx does not listen")


@needs_nginx
def test_nginx_passes_keys_bodies_and_request_ids_on(proxied: httpx2.Client, png: bytes) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/png", "X-Request-Id": "through-both"}
    for _ in range(2):  # the second one by the connection that is kept
        answer = proxied.post("/v1/posteriors", content=png, headers=headers)
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (200, "through-both")
    refused = proxied.post("/v1/posteriors", content=png, headers={"Content-Type": "image/png"})
    assert (refused.status_code, refused.json()["code"]) == (401, "missing_key")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


@needs_nginx
def test_nginx_refuses_what_is_too_large_as_the_service_would(proxied: httpx2.Client) -> None:
    head = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "large"}
    answer = proxied.post("/v1/posteriors", content=b"x" * (64 * 2**20 + 1), headers=head)
    problem = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert (problem["code"], problem["request_id"], problem["title"]) == (
        "request_too_large",
        "large",
        PROBLEMS["request_too_large"][1],
    )


@needs_nginx
def test_nginx_ends_a_head_that_does_not_come(proxied: httpx2.Client) -> None:
    where = proxied.base_url
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", where.port or 0), timeout=20) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        with contextlib.suppress(ssl.SSLEOFError):  # one way to end it; the other is an answer, or none
            assert b" 200 " not in connection.recv(1000)


@needs_nginx
def test_nginx_says_when_the_service_is_not_there(tmp_path: Path) -> None:
    with nginx(tmp_path, f"http://127.0.0.1:{free_port()}") as proxy:
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        answer = httpx2.get(f"{proxy}/v1/models", verify=context)
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "not_ready", "1")
