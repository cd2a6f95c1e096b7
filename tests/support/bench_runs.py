"""Short runs of the bench command."""

from __future__ import annotations

import json

from specdec_core.cli import main

QUICK = ["--max-new-tokens", "12", "--repetitions", "2", "--temperature", "0"]


def bench_json(capsys, *arguments: str) -> dict:
    """Run the bench command with --json and return what it prints, parsed."""
    assert main(["bench", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
