"""docs/benchmarks.md and its plots, from what the others left in benchmarks/results: no figure is typed by hand.

python benchmarks/page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jobs_page
import matplotlib as mpl
import pointcloud_page
from machine import RESULTS, described
from matplotlib import pyplot as plt

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
KINDS = {"png": "one PNG", "npy": "one npy", "bulk": "npy of {images}"}
OURS = "isolatent"

mpl.use("Agg")
mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "isolatent", "font.size": 9, "axes.spines.top": False}
mpl.rcParams |= {"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False}


def write(results: Path = RESULTS, path: Path = PAGE) -> Path:
    """Write the page of what is in the folder `results`, and return its path."""
    parts = ["# Benchmarks", "Written by `benchmarks/page.py` from the files in `benchmarks/results/`."]
    sections = {"serving": _serving, "overload": _overload}
    for name, section in sections.items():
        if (results / f"{name}.json").exists():
            parts += section(json.loads((results / f"{name}.json").read_text()), path)
    parts += jobs_page.sections(results) + pointcloud_page.sections(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n")
    return path


# ---- side by side ----


def _serving(found: dict[str, Any], path: Path) -> list[str]:
    where = "the same cores" if found["load_shares_cores"] else "other cores"
    parts = [
        "## Side by side",
        f"{described(found)} Every server has the same {found['server_cores']} cores, model and inputs, decodes the "
        "files itself and answers mean and variance in the leanest format that it has. Load comes from wrk, on "
        f"{where}; {found['rounds']} rounds of {found['seconds']:g} s per case, interleaved, every other server frozen "
        "meanwhile. Figures are medians over the rounds. Run it again: `make bench`.",
        _table(
            ["server", "settings", "documented in"],
            ([name, each["settings"], each["documented"]] for name, each in found["contestants"].items()),
        ),
    ]
    parts += [f"Left out: {name}: {reason}" for name, reason in found["failed"].items()]
    for name, model in found["models"].items():
        parts += _model(name, model)
    _plot_serving(found, path.with_name(f"{path.stem}-serving.svg"))
    return [*parts, f"![Requests per second over connections]({path.stem}-serving.svg)"]


def _model(name: str, model: dict[str, Any]) -> list[str]:
    cases = model["cases"]
    servers = list(dict.fromkeys(server for case in cases.values() for server in case["results"]))
    columns = [f"{KINDS[case['kind']].format(**case)}, {case['connections']} conn." for case in cases.values()]
    sizes = ", ".join(f"{KINDS[kind].format(images=256)} {size:,} bytes" for kind, size in model["bytes"].items())
    ours = [server for server in servers if server.startswith(OURS)]
    return [
        f"### {name}: {model['latent']} latents",
        f"A body of {sizes}.",
        "Images per second:",
        _table(["server", *columns], ([server, *_cells(cases, server, _rate, 0)] for server in servers)),
        "p50 / p99 in ms:",
        _table(["server", *columns], ([server, *_latencies(cases, server)] for server in servers)),
        "Times the images per second of the best peer, and (lowest and highest of the rounds):",
        _table(["server", *columns], ([server, *_ratios(cases, server)] for server in ours)),
        "Without a server, on the same cores:",
        _table(["limit", "images/s"], ([way, f"{each['median']:,.0f}"] for way, each in model["limits"].items())),
        "Share of the limit that isolatent reaches, the model alone for npy, model and decoding for PNG:",
        _table(["server", *columns], ([server, *_shares(model, server)] for server in ours)),
        _errors(cases),
    ]


def _rate(case: dict[str, Any], server: str) -> float:
    return float(case["results"][server]["requests_per_second"]["median"]) * int(case["images"])


def _cells(cases: dict[str, Any], server: str, value: Any, digits: int) -> list[str]:
    return [f"{value(case, server):,.{digits}f}" if server in case["results"] else "" for case in cases.values()]


def _latencies(cases: dict[str, Any], server: str) -> list[str]:
    rows = [case["results"].get(server) for case in cases.values()]
    return [f"{row['p50_ms']['median']:.1f} / {row['p99_ms']['median']:.1f}" if row else "" for row in rows]


def _ratios(cases: dict[str, Any], server: str) -> list[str]:
    cells = []
    for case in cases.values():
        peers = [name for name in case["results"] if not name.startswith(OURS)]
        if not peers:
            cells.append("")
            continue
        best = max(peers, key=lambda name: _rate(case, name))
        own, others = (case["results"][name]["requests_per_second"] for name in (server, best))
        rounds = [a / b for a, b in zip(own["rounds"], others["rounds"], strict=True) if b]
        spread = f" ({min(rounds):.2f}-{max(rounds):.2f})" if rounds else ""
        cells.append(f"{own['median'] / others['median']:.2f}{spread} {best}" if others["median"] else "")
    return cells


def _shares(model: dict[str, Any], server: str) -> list[str]:
    limits = {name: each["median"] for name, each in model["limits"].items()}
    alone = max(rate for name, rate in limits.items() if "decoding" not in name)
    decoding = max(rate for name, rate in limits.items() if "decoding" in name)
    return [
        f"{_rate(case, server) / (decoding if case['kind'] == 'png' else alone):.2f}"
        for case in model["cases"].values()
    ]


def _errors(cases: dict[str, Any]) -> str:
    bad = [
        f"{server}: {result['errors']} at {name}"
        for name, case in cases.items()
        for server, result in case["results"].items()
        if result["errors"]
    ]
    return "Answers other than 2xx, broken connections and timeouts: " + ("; ".join(bad) if bad else "none") + "."


def _plot_serving(found: dict[str, Any], path: Path) -> None:
    """One panel per model: images per second over the connections, for the first kind of body, single PNG files."""
    models = found["models"]
    kind = next(iter(next(iter(models.values()))["bytes"]))
    figure, axes = plt.subplots(1, len(models), figsize=(4 * len(models) + 2, 3.4), squeeze=False, layout="constrained")
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        cases = [case for case in model["cases"].values() if case["kind"] == kind]
        for number, server in enumerate(found["contestants"]):
            points = [(case["connections"], _rate(case, server)) for case in cases if server in case["results"]]
            width = 2.5 if server.startswith(OURS) else 1.2
            x, y = zip(*points, strict=True) if points else ((), ())
            axis.plot(x, y, "o-", lw=width, ms=3, c=f"C{number}", label=server)
        axis.set(
            title=f"{name}, {KINDS[kind].format(images=256)}", xlabel="connections", ylabel="images/s", ylim=(0, None)
        )
        axis.set_xscale("log", base=2)
        axis.set_xticks([case["connections"] for case in cases], [str(case["connections"]) for case in cases])
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    _save(figure, path)


# ---- past its capacity ----


def _overload(found: dict[str, Any], path: Path) -> list[str]:
    where = "on the same cores, which takes from it" if found["load_shares_cores"] else "on other cores"
    options = f"--max-queue {found['max_queue']} {found['options']}".strip()
    parts = [
        "## Past its capacity",
        f"{described(found)} `isolatent serve {options}` on {found['server_cores']} cores. Single PNG files are "
        f"offered open loop, {found['arrivals']} arrivals, for {found['seconds']:g} s per level, by a generator "
        f"{where}. Latency counts from when a request was due. Bound: what the queue takes at the rate that was "
        "reached, plus 100 ms. Recovered: from when on, at half the capacity after the overload, the median of every "
        "quarter of a second is normal. Run it again: `python benchmarks/overload.py`.",
    ]
    for name, model in found["models"].items():
        proof = model["generator"]
        parts += [
            f"### {name}: capacity {model['capacity']:,.0f} requests/s",
            f"At half of it: p50 {model['normal_ms']['p50']:.1f} ms, p99 {model['normal_ms']['p99']:.1f} ms. "
            f"The generator against a server that does nothing, at {proof['offered_per_second']:,.0f} requests/s: "
            f"{100 * proof['answered']:.1f} % answered, itself late by {proof['late_ms']['p99']:.1f} ms at p99.",
            _table(_LEVEL, (_level(level) for level in model["levels"])),
        ]
        parts += [f"At {level['level']:g}x not kept: {_broken(level)}." for level in model["levels"] if _broken(level)]
    _plot_overload(found, path.with_name(f"{path.stem}-overload.svg"))
    return [*parts, f"![Latency and memory past capacity]({path.stem}-overload.svg)"]


_LEVEL = [
    "offered",
    "requests/s",
    "accepted/s",
    "accepted p50 / p99, ms",
    "bound, ms",
    "refused",
    "refused p99, ms",
    "without Retry-After",
    "other statuses",
    "memory, MB",
    "recovered after, s",
    "generator late p99, ms",
]


def _level(level: dict[str, Any]) -> list[str]:
    accepted, refused = level["accepted_ms"], level["rejected_ms"]
    others = {status: count for status, count in level["statuses"].items() if status not in ("200", "429", "503")}
    names = {"-1": "broken", "0": "unanswered"}
    memory, recovered = level["memory_mb"]["mb"], level["recovered_after"]
    return [
        f"{level['level']:g}x",
        f"{level['offered_per_second']:,.0f}",
        f"{level['accepted_per_second']:,.0f}",
        f"{accepted['p50']:.0f} / {accepted['p99']:.0f}",
        f"{level['bound_ms']:.0f}",
        f"{refused['count']:,}",
        f"{refused['p99']:.0f}" if refused["count"] else "",
        str(level["without_retry_after"]),
        ", ".join(f"{count} {names.get(status, status)}" for status, count in others.items()) or "none",
        f"{memory[0]:.0f} to {max(memory):.0f}",
        "never" if recovered is None else f"{recovered:.1f}",
        f"{level['generator_late_ms']['p99']:.1f}",
    ]


def _broken(level: dict[str, Any]) -> str:
    return ", ".join(name for name, kept in level["holds"].items() if kept is False)


def _plot_overload(found: dict[str, Any], path: Path) -> None:
    """Per model: latency over the offered load with its bound, and memory over time at the highest level."""
    models = found["models"]
    figure, axes = plt.subplots(len(models), 2, figsize=(9, 2.9 * len(models)), squeeze=False, layout="constrained")
    for (left, right), (name, model) in zip(axes, models.items(), strict=True):
        levels = model["levels"]
        x = [level["level"] for level in levels]
        left.plot(x, [level["accepted_ms"]["p50"] for level in levels], "o-", label="accepted p50")
        left.plot(x, [level["accepted_ms"]["p99"] for level in levels], "o-", label="accepted p99")
        left.plot(x, [level["rejected_ms"]["p99"] or None for level in levels], "s-", label="refused p99")
        left.plot(x, [level["bound_ms"] for level in levels], "k--", lw=1, label="bound of accepted")
        left.set(title=name, xlabel="offered load / capacity", ylabel="ms", yscale="log")
        left.legend(fontsize=7)
        for level in levels:
            right.plot(level["memory_mb"]["second"], level["memory_mb"]["mb"], label=f"{level['level']:g}x")
        right.set(title=f"{name}, memory of all processes", xlabel="s", ylabel="MB", ylim=(0, None))
        right.legend(fontsize=7)
    _save(figure, path)


# ---- both ----


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    print(f"Written to {write()}")
