"""Cores and memory as control groups limit them, read from copies of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolatent import _machine

VERSION_2 = "0::/box/inner\n"
VERSION_1 = "4:memory:/box\n2:cpu,cpuacct:/box\n1:name=systemd:/\n0::/\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys/fs/cgroup, on a machine of 16 cores."""
    monkeypatch.setattr(_machine, "_ROOT", tmp_path)
    monkeypatch.setattr(_machine, "affinity", lambda: 16)
    return tmp_path


def write(groups: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    """Let this process be in the groups `own`, with these files below /sys/fs/cgroup."""
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    (groups / "own").write_text(own)
    monkeypatch.setattr(_machine, "_OWN", groups / "own")


def test_the_tightest_limit_up_the_tree_counts(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "box/cpu.max": "250000 100000\n",
        "box/inner/cpu.max": "max 100000\n",
        "box/memory.max": "1073741824\n",
        "box/inner/memory.max": "max\n",
    }
    write(groups, monkeypatch, VERSION_2, files)
    assert (_machine.quota(), _machine.cores(), _machine.memory_limit()) == (2.5, 3, 2**30)


def test_version_1_is_read_as_well(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu/box/cpu.cfs_quota_us": "50000\n",
        "cpu/box/cpu.cfs_period_us": "100000\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/box/memory.limit_in_bytes": "536870912\n",
    }
    write(groups, monkeypatch, VERSION_1, files)
    assert (_machine.quota(), _machine.cores(), _machine.memory_limit()) == (0.5, 1, 2**29)


def test_no_limit_is_none(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(groups, monkeypatch, VERSION_2, {})
    assert (_machine.quota(), _machine.cores(), _machine.memory_limit()) == (None, 16, None)
