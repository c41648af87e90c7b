"""One shard: what comes out for pictures and clouds, good, bad and gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isolatent_export import Bundle
from isolatent_export.inputs import InputError, Limits, decode_item
from isolatent_export.outputs import posterior, reconstruction
from isolatent_export.runtime import OnnxRuntime
from isolatent_serve import consistency
from isolatent_serve.jobs import Counts, Encoder, JobError, JobFolder, run_shard
from isolatent_serve.jobs.shard import ELSEWHERE, try_one
from jobs_core_support import CORRUPT, failures, job, pictures, results, scans


def rows(folder: JobFolder) -> dict[str, list[object]]:
    found: dict[str, list[object]] = pq.read_table(folder.path).to_pydict()
    return found


def decoded(bundle: Bundle, inputs: Path) -> np.ndarray:
    spec = bundle.manifest.input
    return np.stack([decode_item(file.read_bytes(), spec, Limits()) for file in sorted(inputs.iterdir())])


def done(folder: JobFolder) -> JobFolder:
    encoder = Encoder(folder.spec)
    for number in folder.todo():
        run_shard(folder, number, encoder)
    return folder


@pytest.mark.parametrize("modality", ["image", "point_cloud"])
def test_posteriors_are_those_of_the_model(
    tmp_path: Path, bundle_path: Path, cloud_bundle_path: Path, modality: str
) -> None:
    path, inputs = (
        (bundle_path, pictures(tmp_path / "inputs", 12))
        if modality == "image"
        else (cloud_bundle_path, scans(tmp_path / "inputs", 12))
    )
    found = rows(done(job(tmp_path / "job", path, inputs)))
    bundle = Bundle.open(path)
    expected = posterior(OnnxRuntime(bundle, threads=1), decoded(bundle, inputs))
    assert found["id"] == sorted(file.name for file in inputs.iterdir())
    for name in ("mean", "variance", "kl"):
        np.testing.assert_allclose(np.array(found[name]), expected[name], atol=1e-5, rtol=1e-4)


def test_all_outputs_are_what_the_service_answers(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 4)
    outputs = ("embedding", "reconstruction_error", "consistency")
    found = rows(done(job(tmp_path / "job", bundle_path, images, outputs=outputs, samples=2)))
    bundle = Bundle.open(bundle_path)
    graphs = OnnxRuntime(bundle, threads=1)
    items = np.stack(
        [decode_item(file.read_bytes(), bundle.manifest.input, Limits()) for file in sorted(images.iterdir())]
    )
    moved = consistency.of(bundle, 2)(graphs, items)
    assert found["embedding"] == found["mean"]
    np.testing.assert_allclose(found["reconstruction_error"], reconstruction(graphs, items)["error"], rtol=1e-5)
    np.testing.assert_allclose(found["consistency_kl"], moved["kl"], rtol=1e-4)
    np.testing.assert_allclose(found["consistency_normalized"], moved["normalized"], rtol=1e-4)


def test_bad_inputs_are_in_the_errors_and_nowhere_else(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 25, bad=10)
    (images / "000001.png").write_bytes(b"")
    folder = job(tmp_path / "job", bundle_path, images)
    (images / "000024.png").unlink()
    done(folder)
    found = failures(folder)
    assert [(each["id"], each["index"]) for each in found] == [
        ("000001.png", 1),
        ("000009.png", 9),
        ("000019.png", 19),
        ("000024.png", 24),
    ]
    assert [each["code"] for each in found[:3]] == ["empty_input", "undecodable", "undecodable"]
    assert sorted([*rows(folder)["id"], *(each["id"] for each in found)]) == [f"{place:06d}.png" for place in range(25)]
    assert folder.counts() == Counts(25, 21, 4)


def test_a_shard_of_bad_inputs_is_done_as_well(tmp_path: Path, bundle_path: Path) -> None:
    folder = done(job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3, bad=1)))
    assert (folder.todo(), folder.counts()) == ([], Counts(3, 0, 3))
    assert pq.read_table(folder.part(0)).num_rows == 0


def test_what_an_input_gives_does_not_depend_on_its_neighbours(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 10)
    well = rows(done(job(tmp_path / "well", bundle_path, images)))
    (images / "000001.png").write_bytes(CORRUPT)
    ill = rows(done(job(tmp_path / "ill", bundle_path, images)))
    assert ill["mean"] == [mean for place, mean in enumerate(well["mean"]) if place != 1]


def test_doing_a_shard_again_gives_the_same_bytes(tmp_path: Path, bundle_path: Path) -> None:
    folder = done(job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 25, bad=7)))
    before = results(folder)
    run_shard(folder, 1, Encoder(folder.spec))
    assert results(folder) == before


def test_every_input_is_announced(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 6))
    heard: list[int] = []
    run_shard(folder, 0, Encoder(folder.spec), heard.append)
    assert heard == [0, 1, 2, 3, ELSEWHERE, 4, 5, ELSEWHERE]


def test_nobody_is_blamed_for_what_comes_before_a_row(tmp_path: Path, bundle_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"-"] * 12}), tmp_path / "a.parquet")
    folder = job(tmp_path / "job", bundle_path, tmp_path / "a.parquet")
    heard: list[int] = []
    encoder = Encoder(folder.spec)
    run_shard(folder, 1, encoder, heard.append)
    assert heard == [ELSEWHERE, 0, ELSEWHERE, 1, ELSEWHERE]
    heard.clear()
    try_one(folder, 1, 1, encoder, heard.append)
    assert heard == [ELSEWHERE, 1]


def test_blamed_inputs_are_not_touched(tmp_path: Path, bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 6))
    encoder = Encoder(folder.spec)
    heard: list[int] = []
    run_shard(folder, 0, encoder, heard.append, {2: encoder.failure("parser_crashed")})
    assert 2 not in heard
    assert [(each["id"], each["code"]) for each in failures(folder)] == [("000002.png", "parser_crashed")]


def test_answers_that_are_not_finite_are_errors(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 4))
    encode = OnnxRuntime.encode

    def overflow(runtime: OnnxRuntime, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, log_variance = encode(runtime, items)
        if len(items) == 4:
            mean[1] = np.inf
        return mean, log_variance

    encoder = Encoder(folder.spec)
    monkeypatch.setattr(OnnxRuntime, "encode", overflow)
    run_shard(folder, 0, encoder)
    assert [(each["id"], each["code"]) for each in failures(folder)] == [("000001.png", "non_finite_output")]


def test_an_input_that_the_model_cannot_take_fails_alone(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(tmp_path / "images", 4)
    folder = job(tmp_path / "job", bundle_path, images)
    encoder = Encoder(folder.spec)
    poison = encoder.decode((images / "000002.png").read_bytes())
    encode = OnnxRuntime.encode

    def refuse(runtime: OnnxRuntime, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if any(np.array_equal(item, poison) for item in items):
            raise RuntimeError("a node of the graph failed")
        return encode(runtime, items)

    monkeypatch.setattr(OnnxRuntime, "encode", refuse)
    assert run_shard(folder, 0, encoder) == Counts(4, 3, 1)
    assert [(each["id"], each["code"]) for each in failures(folder)] == [("000002.png", "internal")]


def test_readers_that_fail_or_eat_memory_cost_one_input(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 1)).spec)

    def greedy(data: bytes, *_: object) -> bytes:
        return bytes(2**30) if data == b"eat" else data[99:100] + bytes([data[99]])

    monkeypatch.setattr("isolatent_serve.jobs.shard.decode_item", greedy)
    for data, code in ((b"eat", "parser_memory"), (b"fail", "parser_crashed")):
        with pytest.raises(InputError) as refusal:
            encoder.decode(data)
        assert refusal.value.code == code
    assert len(bytes(2**30)) == 2**30  # memory is free again


def test_batches_of_large_inputs_are_smaller(tmp_path: Path, bundle_path: Path) -> None:
    images = pictures(tmp_path / "images", 3)
    encoder = Encoder(job(tmp_path / "job", bundle_path, images, limits={"decoded_bytes": 600}).spec)
    assert encoder.batch_items == 2  # of 16 x 16 bytes


def test_a_model_that_changed_is_refused(tmp_path: Path, bundle_path: Path, colour_bundle_path: Path) -> None:
    folder = job(tmp_path / "job", bundle_path, pictures(tmp_path / "images", 3))
    other = Encoder(folder.spec.model_copy(update={"model": colour_bundle_path}))
    with pytest.raises(JobError, match="not the model that the job began with"):
        run_shard(folder, 0, other)
