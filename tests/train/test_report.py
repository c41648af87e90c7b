"""`isolatent evaluate` from end to end: JSON, table and a report that needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from isolatent.cli import main
from isolatent_train.bundling import export_run
from isolatent_train.config import Config
from isolatent_train.data import Labelled, Splits, load_data
from isolatent_train.evaluation import evaluate
from isolatent_train.evaluation.machine import machine
from isolatent_train.evaluation.summary import group_runs
from isolatent_train.loop import train
from isolatent_train.report import Column, write_report
from isolatent_train.run import RunError, Trained

SMALL = ["training.epochs=2", "model.channels=[4, 8]", "model.latent=4"]
HOSTILE = "<script>alert(1)<.script>&\"'"
"""Also as a folder's name, which holds no slash."""


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, much slower where others use the processor too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs") / HOSTILE
    folder.mkdir()
    made = []
    for arm in ("base", "cr"):
        for seed in (0, 1):
            config = Config.load("digits", [*SMALL, f"objective.arm={arm}", f"seed={seed}", f"name={arm}"])
            made.append(train(config, load_data(config.data), folder / f"{arm}-{seed}"))
    return made


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        assert main(["evaluate", *map(str, arguments), "--samples", "4", "--device", "cpu"]) == 0
        return capsys.readouterr().out

    return run


def test_two_arms_with_two_seeds_make_two_columns(runs: list[Path], tmp_path: Path, command: Any) -> None:
    report = tmp_path / "both.html"
    answer = json.loads(command(*runs, "--json", "--report", report))
    assert [(column["label"], column["seeds"]) for column in answer["columns"]] == [("base", [0, 1]), ("cr", [0, 1])]
    values = [answer["runs"][str(run)]["nll"] for run in runs[:2]]
    summary = answer["columns"][0]["metrics"]["nll"]
    assert summary["mean"] == pytest.approx(sum(values) / 2)
    assert summary["ci95"][0] < min(values)
    assert summary["n"] == 2
    kept = json.loads((runs[0] / "evaluation.json").read_text())
    assert kept["metrics"] == answer["runs"][str(runs[0])]
    assert answer["machine"]["device"].startswith("cpu")

    page = Page(report)
    assert all(str(run) in page.text for run in runs)
    assert "script" not in {tag for tag, _ in page.tags}
    assert {
        attributes[name] for _, attributes in page.tags for name in ("href", "srcset") if name in attributes
    } == set()
    sources = [attributes["src"] or "" for _, attributes in page.tags if "src" in attributes]
    assert len(sources) > 10
    assert all(source.startswith("data:image/") for source in sources)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert "url(" not in report.read_text()
    assert "@import" not in report.read_text()


def test_strength_curves_are_in_the_json(runs: list[Path], command: Any) -> None:
    (metrics,) = json.loads(command(runs[0], "--json"))["runs"].values()
    rotation = metrics["consistency_by_strength"]["rotation"]
    assert rotation["strengths"] == [5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert rotation["kl"][0] < rotation["kl"][4]
    assert len(rotation["retrieval_top1"]) == 9


def test_one_run_gets_its_report_beside_it(runs: list[Path], command: Any) -> None:
    printed = command(runs[2])
    assert "one seed; N = 400 test inputs, S = 4" in printed
    assert (runs[2] / "report.html").is_file()


def test_a_bundle_measures_like_its_run_and_is_not_changed(runs: list[Path], tmp_path: Path, command: Any) -> None:
    trained = Trained.open(runs[3])
    splits = load_data(trained.config.data)
    bundle = export_run(trained, splits, {}, tmp_path / "bundle").path
    before = sorted(bundle.iterdir())
    (of_bundle,) = json.loads(command(bundle, "--json"))["runs"].values()
    assert of_bundle == evaluate(trained, splits, samples=4)
    assert main(["evaluate", str(bundle), "--report", str(bundle / "report.html")]) == 1
    assert sorted(bundle.iterdir()) == before


def test_a_bad_path_fails_before_anything_is_computed(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("isolatent_train.commands.evaluate.evaluate", pytest.fail)
    assert main(["evaluate", str(runs[0]), "nowhere"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["evaluate", "--report", str(runs[0]), str(runs[1])]) == 1
    assert "ends in .html" in capsys.readouterr().err
    assert main(["evaluate", str(runs[0]), "--report", "no/such/folder.html"]) == 1
    assert "make it first" in capsys.readouterr().err


def unusual(run: Path, test: Callable[[Labelled], Labelled], train: Callable[[Labelled], Labelled]) -> Column:
    trained = Trained.open(run)
    splits = load_data(trained.config.data)
    splits = Splits(splits.spec, train(splits.train), splits.validation, test(splits.test))
    metrics = evaluate(trained, splits, samples=3)
    (group,) = group_runs({str(run): trained.config})
    return Column(group, (trained,), (metrics,), splits)


def test_unlabelled_data_has_no_probe_and_says_why(runs: list[Path], tmp_path: Path) -> None:
    column = unusual(runs[2], lambda part: Labelled(part.inputs[:20], None), lambda part: Labelled(part.inputs, None))
    assert column.metrics[0]["probe_accuracy"] is None
    assert "has no labels" in column.metrics[0]["probe_note"]
    write_report([column], tmp_path / "report.html", data=None, machine=machine(torch.device("cpu")))
    assert "has no labels" in (tmp_path / "report.html").read_text()


def test_a_single_test_image_is_measured_as_far_as_it_can_be(runs: list[Path], tmp_path: Path) -> None:
    column = unusual(runs[2], lambda part: part[:1], lambda part: part[:1])
    (metrics,) = column.metrics
    assert metrics["test_examples"] == 1
    assert metrics["nll"] > 0
    assert metrics["active_units"] is metrics["consistency_kl_normalized"] is metrics["probe_accuracy"] is None
    json.dumps(metrics, allow_nan=False)
    write_report([column], tmp_path / "report.html", data=None, machine=machine(torch.device("cpu")))


def test_two_test_images_make_a_whole_report(runs: list[Path], tmp_path: Path) -> None:
    column = unusual(runs[2], lambda part: part[:2], lambda part: part[:40])
    assert column.metrics[0]["consistency_kl_normalized"] > 0
    write_report([column], tmp_path / "report.html", data="elsewhere", machine=machine(torch.device("cpu")))
    assert "elsewhere (trained on digits)" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("part", "what"), [("encoder", "posteriors"), ("decoder", "reconstructions")])
def test_a_model_whose_outputs_are_no_numbers_is_named(runs: list[Path], part: str, what: str) -> None:
    trained = Trained.open(runs[2])
    next(trained.model.get_submodule(part).parameters()).data.fill_(math.nan)
    with pytest.raises(RunError, match=f"cr-0: the {what} of 400 of 400 test inputs .* train again"):
        evaluate(trained, load_data(trained.config.data), samples=3)


def test_batches_do_not_change_the_likelihood(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained.open(runs[0])
    splits = load_data(trained.config.data)
    splits = Splits(splits.spec, splits.train[:50], splits.validation, splits.test[:40])
    whole = evaluate(trained, splits, samples=100)
    monkeypatch.setattr("isolatent_train.evaluation.encoding.LARGEST", 16)
    monkeypatch.setattr("isolatent_train.evaluation.likelihood.DECODED", 128)
    parts = evaluate(trained, splits, samples=100)
    assert parts["nll"] == pytest.approx(whole["nll"], abs=1.0)  # other draws of pixels and latents
    assert parts["reconstruction_mse"] == pytest.approx(whole["reconstruction_mse"], rel=1e-5)
