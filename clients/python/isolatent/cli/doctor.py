"""Check this machine: packages, ONNX Runtime and what it really runs on, system libraries, cores, memory and disk.

Each line is ok, missing (not installed) or broken (installed and not working), with the command that mends it.
Exit code 0 when everything that is installed works.

isolatent doctor
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from isolatent.cli import CommandError
from isolatent.cli._checks import Finding, all_findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print what was found; exit code 1 when something that is installed does not work."""
    findings = []
    for finding in all_findings():
        findings.append(finding)
        if not args.json:
            _print(finding)
    broken = [finding for finding in findings if finding.state == "broken"]
    if args.json:
        print(json.dumps({"healthy": not broken, "findings": [asdict(finding) for finding in findings]}, indent=2))
    if broken:
        first = broken[0]
        raise CommandError(f"{first.name}: {first.detail}; to mend it: {first.remedy}")
    return 0


def _print(finding: Finding) -> None:
    print(f"{finding.state:<8} {finding.name:<16} {finding.detail}", flush=True)
    if finding.remedy:
        print(f"{'':<8} {'':<16} -> {finding.remedy}", flush=True)
