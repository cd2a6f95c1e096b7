"""The whole command on a tiny model."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.smollm2.tiny_inputs import HEAD_IDS, TEMPLATE, write_inputs
from training.smollm2 import shards
from training.smollm2.drafter import Drafter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SECONDS = 26
"""Enough where two busy cores import torch for ten of them."""


@pytest.mark.slow
def test_a_run_ends_within_its_time_and_writes_its_files(tmp_path):
    write_inputs(tmp_path / "data")
    out = tmp_path / "out"
    options = {
        "--data": tmp_path / "data",
        "--out": out,
        "--seconds": SECONDS,
        "--device": "cpu",
        "--dtype": "float32",
        "--layers": "0,2;1",
        "--slots": 64,
        "--max-positions": 96,
        "--generate-share": 0.4,
        "--batch-tokens": 2048,
        "--store-gib": 0.02,
        "--shard-mb": 0.02,
        "--conversations-mb": 0.01,
        "--reserve-s": 1,
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "training.smollm2.distill", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert time.monotonic() - begin < SECONDS + 2

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "failed" in line.get("message", "")]
    assert lines[-1]["phase"] == "end"
    for name, layers in (("drafter-0-2", 2), ("drafter-1", 1)):
        drafter = Drafter.from_tensors(shards.dequantize(shards.read_shards(out / name)))
        assert len(drafter.layers) == layers
        assert drafter.head_ids.tolist() == HEAD_IDS
        assert max(path.stat().st_size for path in (out / name).iterdir()) < 20_000
        evaluated = [line for line in lines if line.get("drafter") == f"{name} int8"]
        assert {line["conversations"] for line in evaluated} == {"carried", "generated"}
    conversations = np.load(out / "conversations.npz")
    assert conversations["ids"].nbytes + 8 * len(conversations["lengths"]) <= 10_000
    assert conversations["ids"].size == conversations["lengths"].sum()
    assert conversations["ids"][: len(TEMPLATE.prefix)].tolist() == TEMPLATE.prefix


def test_missing_inputs_end_the_command_with_a_message(tmp_path):
    result = subprocess.run(
        [
            *[sys.executable, "-m", "training.smollm2.distill", "--data", str(tmp_path)],
            *["--out", str(tmp_path / "out"), "--device", "cpu", "--seconds", "20"],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "inputs.json" in result.stderr
