"""`isolatent embed`: jobs here with a bundle, and here by a service, end to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from isolatent import Client
from isolatent.cli import main

if TYPE_CHECKING:
    from conftest import StandIn

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from isolatent.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def images(pngs: list[Path], tmp_path: Path) -> Path:
    """A folder with seven pictures, one of them in a folder below, a file that is none, and a text."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for path in pngs:
        path.rename(folder / ("more" if path.name == "6.png" else "") / path.name)
    (folder / "bad.png").write_text("no picture")
    (folder / "notes.md").write_text("left out")
    return folder


def rows(folder: Path) -> dict[str, Any]:
    found = pq.ParquetDataset(folder).read().to_pylist()
    return {row["id"]: row for row in found}


def expected(client: Client, images: Path) -> dict[str, Any]:
    paths = sorted(images.rglob("[0-9].png"))
    posteriors = client.posteriors(paths)
    return {path.relative_to(images).as_posix(): each for path, each in zip(paths, posteriors, strict=True)}


def how(kind: str, bundle: Path, url: str) -> list[str]:
    """Arguments for computing here, or by a service."""
    return ["--model", str(bundle)] if kind == "here" else ["--url", url]


@pytest.mark.parametrize("kind", ["here", "served"])
def test_a_folder_becomes_parts_and_a_list_of_errors(
    kind: str,
    images: Path,
    bundle_path: Path,
    service_url: str,
    client: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    outputs = "embedding,reconstruction_error,consistency"
    argv = ["embed", str(images), "--out", str(out), "--shard-items", "3", "--outputs", outputs, "--samples", "2"]
    assert main([*argv, *how(kind, bundle_path, service_url)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 7 of 8 inputs (8 in ")
    assert f"1 inputs failed, with reasons in {out}/_errors.jsonl" in said.err
    found, wanted = rows(out), expected(client, images)
    assert found.keys() == wanted.keys()
    for name, row in found.items():
        np.testing.assert_allclose(row["mean"], wanted[name].mean, atol=1e-5)
        assert row["embedding"] == row["mean"]
        assert row["kl"] == pytest.approx(wanted[name].kl, rel=1e-4)
        assert row["reconstruction_error"] > 0
        assert row["consistency_kl"] >= 0
    error = json.loads((out / "_errors.jsonl").read_text())
    assert (error["id"], error["index"], error["code"]) == ("bad.png", 6, "undecodable")
    assert sorted(path.name for path in out.glob("part*")) == [f"part-00000{n}.parquet" for n in range(3)]


@pytest.mark.parametrize("kind", ["here", "served"])
def test_only_what_is_missing_is_done_again(
    kind: str,
    images: Path,
    bundle_path: Path,
    service_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    argv = ["embed", str(images), "--out", str(out), "--shard-items", "3", "--json"]
    argv += how(kind, bundle_path, service_url)
    assert main(argv) == 1
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("part*")}
    lost = out / "part-000001.parquet"
    lost.unlink()
    capsys.readouterr()
    assert main(argv) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["now"], said["total"], said["succeeded"], said["failed"], said["parts"]) == (3, 8, 7, 1, 3)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("part*")}
    assert [path for path in before if before[path] != after[path]] == [lost]
    assert before[lost][0] == after[lost][0]


@pytest.mark.parametrize("name", ["all.parquet", "all.jsonl", "all.npz", "all.npy"])
def test_one_file_has_all_rows(
    name: str, images: Path, bundle_path: Path, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / name
    out.parent.mkdir()
    assert main(["embed", str(images), "--model", str(bundle_path), "--out", str(out), "--shard-items", "3"]) == 1
    errors = out.parent / "all.errors.jsonl"
    assert f"reasons in {errors}" in capsys.readouterr().err
    assert json.loads(errors.read_text())["id"] == "bad.png"
    ids, mean = _read(out)
    wanted = expected(client, images)
    assert ids == list(wanted)
    np.testing.assert_allclose(mean, [each.mean for each in wanted.values()], atol=1e-5)
    assert not out.with_name(f"{name}.job").exists()


def _read(path: Path) -> tuple[list[str], Any]:
    if path.suffix == ".parquet":
        table = pq.read_table(path).to_pydict()
        return table["id"], table["mean"]
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line["id"] for line in lines], [line["mean"] for line in lines]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            assert np.array_equal(arrays["embedding"], arrays["mean"])
            return arrays["ids"].tolist(), arrays["embedding"]
    return [json.loads(line) for line in path.with_suffix(".ids.jsonl").read_text().splitlines()], np.load(path)


def test_other_settings_are_refused_unless_it_is_to_begin_afresh(
    images: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["embed", str(images), "--model", str(bundle_path), "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    capsys.readouterr()
    assert main([*argv, "--outputs", "embedding"]) == 2
    error = capsys.readouterr().err
    assert "other outputs" in error
    assert "--fresh" in error
    assert error.count("\n") == 1
    assert main([*argv, "--outputs", "embedding", "--fresh"]) == 1
    assert "embedding" in next(iter(rows(tmp_path / "out").values()))


@pytest.mark.parametrize("kind", ["here", "served"])
def test_a_dry_run_counts_tries_and_leaves_nothing(
    kind: str,
    images: Path,
    bundle_path: Path,
    service_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (images / "empty.png").touch()
    argv = ["embed", str(images), "--out", str(tmp_path / "out"), "--shard-items", "4", "--dry-run"]
    argv += how(kind, bundle_path, service_url)
    assert main([*argv, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["inputs"], said["parts"], said["model"]) == (9, 3, "tiny 1")
    assert said["first"][:2] == ["0.png", "1.png"]
    assert sum(said["skipped"].values()) == 1
    assert said["tried"] == 9
    refused = {name: reason.split(":")[0] for name, reason in said["refused"].items()}
    assert refused == {"bad.png": "undecodable", "empty.png": "empty_input"}
    assert not (tmp_path / "out").exists()
    main(argv)
    assert "9 inputs in 3 parts of 4, parquet\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["here", "served"])
def test_an_interrupt_leaves_what_is_done_and_says_how_to_go_on(
    kind: str, bundle_path: Path, service_url: str, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    count = 400 if kind == "here" else 800  # a service is faster
    for index, picture in enumerate(np.random.default_rng(1).integers(0, 256, (count, 16, 16), np.uint8)):
        Image.fromarray(picture).save(images / f"{index:03}.png", compress_level=0)
    argv = [
        "embed",
        str(images),
        *how(kind, bundle_path, service_url),
        "--shard-items",
        "4",
        "--batch-size",
        "4",
        "--out",
    ]
    command = [sys.executable, "-m", "isolatent", *argv, str(out), "--processes", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.glob("part*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "inputs are done" in error
    assert f"{out} keeps them; to go on, give the command again\n" in error
    done = {path: path.stat().st_mtime_ns for path in out.glob("part*")}
    assert 0 < len(done) < count // 4
    assert main([*argv, str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(rows(out)) == count
    assert main([*argv, str(tmp_path / "whole")]) == 0
    parts = sorted((tmp_path / "whole").glob("part*"))
    assert all((out / path.name).read_bytes() == path.read_bytes() for path in parts if kind == "here")
    assert rows(out).keys() == rows(tmp_path / "whole").keys()


def test_a_service_that_does_not_answer_ends_it_and_fails_no_input(
    images: Path, service_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["embed", str(images), "--url", service_url, "--out", str(tmp_path / "out"), "--json"]
    assert main([*argv, "--model", "tiny", "--shard-items", "4"]) == 1
    (tmp_path / "out" / "part-000001.parquet").unlink()
    capsys.readouterr()
    assert main([*argv[:3], "http://127.0.0.1:1", *argv[4:], "--shard-items", "4", "--timeout", "0.5"]) == 2
    assert "isolatent serve BUNDLE" in capsys.readouterr().err
    assert main([*argv, "--shard-items", "4"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1


def test_a_part_has_columns_of_one_version_only(
    images: Path, service_url: str, stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        """That of the service, where a new version takes over before the third reconstruction."""
        path, headers, body = stand_in.requests[-1]
        passed = {name: headers[name] for name in ("Accept", "Content-Type") if name in headers}
        got = httpx2.request(handler.command, service_url + path, content=body, headers=passed)
        asked = [each for each, *_ in stand_in.requests if each.startswith("/v1/reconstructions")]
        is_new = path.startswith("/v1/reconstructions") and len(asked) > 2
        content = got.content.replace(b'"version":"1"', b'"version":"2"') if is_new else got.content
        handler.send_response(got.status_code)
        handler.send_header("Content-Type", got.headers["content-type"])
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    stand_in.replies.append(answer)
    argv = ["embed", str(images), "--url", stand_in.url, "--out", str(tmp_path / "out"), "--outputs"]
    argv += ["reconstruction_error", "--shard-items", "4", "--batch-size", "2", "--concurrency", "1"]
    assert main(argv) == 2
    assert "the service has version 2 of tiny now, the job version 1; begin with --fresh" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").glob("part*")] == ["part-000000.parquet"]


def test_progress_is_a_bar_with_rate_on_a_terminal_only(
    images: Path,
    bundle_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv = ["embed", str(images), "--model", str(bundle_path), "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    assert "/s" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([*argv, "--fresh"]) == 1
    bar = capsys.readouterr().err
    assert "[####################] 8 of 8 inputs, " in bar
    assert "/s, 1 failed" in bar


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{images}", "--model", "no/bundle", "--out", "{dir}/out"], "no/bundle: no such folder; name a bundle"),
        (["{images}", "--model", "{images}", "--out", "{dir}/out"], "not a bundle"),
        (["{dir}/none/", "--model", "{bundle}", "--out", "{dir}/out"], "none"),
        (["{images}", "--model", "{bundle}", "--out", "{images}"], "not empty"),
        (["{images}", "--model", "{bundle}", "--out", "{dir}/out.csv"], "must end in .parquet, .jsonl, .npz, .npy, or"),
        (["{images}", "--model", "{bundle}", "--out", "{dir}/no/a.parquet"], "make the folder {dir}/no first"),
        (["{images}", "--model", "{bundle}", "--out", "{dir}/a.npz", "--format", "jsonl"], "says its own format"),
        (["{images}", "--model", "{bundle}", "--out", "{dir}/out", "--address", "auto"], "add --engine ray"),
        (["{images}", "--url", "{url}", "--out", "{dir}/out", "--engine", "ray"], "--model BUNDLE, without --url"),
        (["{images}", "--url", "{url}", "--out", "{dir}/out", "--model", "huge"], "404 model_not_found"),
        (
            ["{images}/0.png", "--url", "{url}", "--out", "{dir}/a.npy", "--fresh"],
            "choose an --out DIR or FILE.parquet",
        ),
        (["{images}/0.png", "--url", "{url}", "--out", "{dir}/no/a.npy"], "make the folder {dir}/no first"),
        (["{images}", "--url", "{url}", "--out", "{dir}/a.npy"], "is a directory; name its files"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix_and_exits_with_2(
    argv: list[str],
    message: str,
    images: Path,
    bundle_path: Path,
    service_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"{images}": str(images), "{dir}": str(tmp_path), "{bundle}": str(bundle_path), "{url}": service_url}

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    assert main(["embed", *map(filled, argv)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("isolatent: error: ")
    assert filled(message) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [("pydantic", [], "jobs"), ("pyarrow", [], "jobs"), ("ray", ["--engine", "ray"], "ray")],
)
def test_a_missing_package_is_one_line_that_names_the_install(
    package: str, options: list[str], extra: str, images: Path, bundle_path: Path, tmp_path: Path
) -> None:
    argv = ["embed", str(images), "--model", str(bundle_path), "--out", str(tmp_path / "out"), *options]
    command = [sys.executable, "-c", BLOCKED.format(package=package), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f'pip install "isolatent[{extra}]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_arrays_from_a_service_need_numpy_only(images: Path, service_url: str, tmp_path: Path) -> None:
    argv = ["embed", f"{images}/[0-9].png", "--url", service_url, "--out", str(tmp_path / "all.npz")]
    command = [sys.executable, "-c", BLOCKED.format(package="pydantic"), *argv]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with np.load(tmp_path / "all.npz") as arrays:
        assert arrays["embedding"].shape == (6, 8)
