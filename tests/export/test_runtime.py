"""Graphs on a device: sizes that run as they come or in buffers, and who says where and why."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from isolatent_export import Bundle, BundleError, parity
from isolatent_export import device as devices
from isolatent_export.graphs import Plain
from isolatent_export.runtime import BUCKETS, CudaOptions, OnnxRuntime

NO_CUDA = not devices.offers_cuda()


@pytest.fixture(params=["bundle_path", "cloud_bundle_path"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle of images, and the one of clouds."""
    return Bundle.open(request.getfixturevalue(request.param))


def items(bundle: Bundle, count: int) -> np.ndarray:
    """So many golden inputs."""
    golden = bundle.golden().input
    return np.concatenate([golden] * (count // len(golden) + 1))[:count]


def test_a_processor_runs_every_size_as_it_comes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], Plain.run
    monkeypatch.setattr(Plain, "run", lambda self, items: (sizes.append(len(items)), run(self, items))[1])
    runtime = OnnxRuntime(bundle, threads=1)
    runtime.encode(items(bundle, 5))
    assert (runtime.buckets, sizes) == ((), [5])
    sizes.clear()
    runtime.warm(items(bundle, 1))
    assert set(sizes) == set(BUCKETS)


@pytest.mark.parametrize("count", [1, 3, 8, 63])
def test_padding_changes_no_bit_of_any_row(bundle: Bundle, count: int) -> None:
    plain, bound = OnnxRuntime(bundle, threads=1), OnnxRuntime(bundle, threads=1, buckets=BUCKETS)
    size = next(size for size in BUCKETS if size >= count)
    bound.encode(items(bundle, 64)[::-1])  # what an earlier batch left behind
    mean, log_variance = bound.encode(items(bundle, size)[:count])
    expected = plain.encode(items(bundle, size))  # other rows where the padding was
    assert np.array_equal(mean, expected[0][:count])
    assert np.array_equal(log_variance, expected[1][:count])
    assert np.array_equal(bound.decode(mean), plain.decode(expected[0])[:count])


def test_what_is_larger_than_every_buffer_is_cut(bundle: Bundle) -> None:
    bound = OnnxRuntime(bundle, threads=1, buckets=(1, 4))
    parts = [bound.encode(part)[0] for part in (items(bundle, 10)[:4], items(bundle, 10)[4:8], items(bundle, 10)[8:])]
    mean, _ = bound.encode(items(bundle, 10))
    assert np.array_equal(mean, np.concatenate(parts))
    assert bound.decode(mean).shape == (10, *bundle.manifest.reconstruction_shape)


def test_results_stay_when_the_next_batch_runs(bundle: Bundle) -> None:
    bound = OnnxRuntime(bundle, threads=1, buckets=BUCKETS)
    mean, _ = bound.encode(items(bundle, 4))
    before = mean.copy()
    bound.encode(items(bundle, 4)[::-1])
    assert np.array_equal(mean, before)


def test_threads_that_share_buffers_get_their_own_rows(bundle: Bundle) -> None:
    bound = OnnxRuntime(bundle, threads=1, buckets=(8,))
    rows = items(bundle, 16)
    alone = [bound.encode(rows[place : place + 3])[0] for place in range(8)]
    wrong = []

    def check(place: int) -> None:
        for _ in range(50):
            if not np.array_equal(bound.encode(rows[place : place + 3])[0], alone[place]):
                wrong.append(place)

    threads = [threading.Thread(target=check, args=[place]) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_buffers_take_nothing_that_the_graph_does_not(bundle: Bundle) -> None:
    bound, good = OnnxRuntime(bundle, threads=1, buckets=BUCKETS), items(bundle, 2)
    for bad in (good.astype(np.float64), good[:, :1]):
        with pytest.raises(ValueError, match="the graph takes"):
            bound.encode(bad)


def test_buffers_reproduce_the_golden_outputs(bundle: Bundle) -> None:
    rows = parity.measure(OnnxRuntime(bundle, threads=1, buckets=BUCKETS), bundle.golden(), "bound")
    assert not parity.excess(rows, bundle.manifest.tolerance)


def test_the_reason_names_what_was_asked_for_and_what_is_installed(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert OnnxRuntime(bundle, device="cpu").reason == "asked for: cpu"
    reason = OnnxRuntime(bundle, device="auto").reason
    assert reason.startswith("auto: CUDAExecutionProvider ")
    assert f" {ort.__version__}" in reason


@pytest.mark.skipif(not NO_CUDA, reason="this ONNX Runtime has CUDA")
def test_cuda_without_cuda_is_refused_with_the_way_out(bundle_path: Path) -> None:
    command = [sys.executable, "-m", "isolatent", "verify", str(bundle_path), "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "CUDAExecutionProvider is not in this ONNX Runtime (onnxruntime " in done.stderr
    assert "install onnxruntime-gpu" in done.stderr


def test_cuda_that_is_there_and_does_not_start_is_refused(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the package for GPUs does on a machine without one: it lists CUDA, and goes on on the CPU."""
    session, asked = ort.InferenceSession, []

    def on_the_cpu(content: bytes, options: ort.SessionOptions, *, providers: list, **_: object) -> object:
        strict = options.get_session_config_entry("session.disable_cpu_ep_fallback") if len(providers) == 1 else "0"
        asked.append((providers[0][0], strict))
        if strict == "1":
            raise RuntimeError("fallback to CPU EP has been explicitly disabled by the user")
        return session(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(devices, "offers_cuda", lambda: True)
    monkeypatch.setattr(devices, "preload", lambda: ("Failed to load libcublasLt.so.13",))
    monkeypatch.setattr(ort, "InferenceSession", on_the_cpu)
    bundle = Bundle.open(bundle_path)
    with pytest.raises(BundleError, match=r"does not start \(.*libcublasLt.so.13\); install onnxruntime-gpu"):
        OnnxRuntime(bundle, device="cuda")
    assert asked == [("CUDAExecutionProvider", "1"), ("CUDAExecutionProvider", "0")]
    monkeypatch.setattr("isolatent_export.runtime._on_cpu", lambda *_: pytest.fail("not before CUDA was tried"))
    with pytest.raises(pytest.fail.Exception, match="not before"):
        OnnxRuntime(bundle, device="auto")


def test_two_packages_of_onnx_runtime_are_both_named(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_version", lambda name: "1.31.1" if name.startswith("onnxruntime") else None)
    OnnxRuntime(Bundle.open(bundle_path))
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are both installed" in caplog.text
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caplog.text


@pytest.mark.skipif(NO_CUDA, reason="needs a GPU and onnxruntime-gpu")
@pytest.mark.parametrize("graphs", [False, True])
def test_a_gpu_reproduces_the_golden_outputs_in_every_bucket(bundle: Bundle, graphs: bool) -> None:
    runtime = OnnxRuntime(bundle, device="cuda", cuda=CudaOptions(graphs=graphs, memory_bytes=2**30))
    assert (runtime.provider, runtime.buckets) == ("CUDAExecutionProvider", BUCKETS)
    plain = OnnxRuntime(bundle, device="cpu")
    for size in (*BUCKETS, *BUCKETS):
        mean, _ = runtime.encode(items(bundle, size))
        np.testing.assert_allclose(mean, plain.encode(items(bundle, size))[0], atol=1e-4)
