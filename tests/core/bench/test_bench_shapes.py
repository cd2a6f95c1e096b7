"""Pairs of given sizes: their acceptance rate is the one given, and they are measured like any other."""

import json
from pathlib import Path

import pytest

from specdec_core.bench.prompts import retold
from specdec_core.bench.shapes import bigram_pair, next_tokens, partly_other
from specdec_core.cli import main
from specdec_core.settings import Settings
from tests.support.bench_runs import QUICK, bench_json

pytestmark = pytest.mark.slow


@pytest.fixture
def shapes(tmp_path) -> list[str]:
    shape = {
        "model_type": "llama", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 1, "eos_token_id": [2, 3],
    }  # fmt: skip
    paths = []
    for name, layers in (("target", 2), ("drafter", 1)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**shape, "num_hidden_layers": layers}))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_a_made_up_pair_is_accepted_at_the_rate_asked_for(shapes, alpha):
    with bigram_pair(*shapes, alpha=alpha, device="cpu") as engine:
        answer = engine.generate("w10 w20 w30", Settings(max_new_tokens=900, temperature=0, gamma=2, seed=0))
    assert len(answer.token_ids) == 900
    assert answer.stats.acceptance_rate == pytest.approx(alpha, abs=0.06)


def test_followers_are_one_cycle_that_never_ends_an_answer():
    followers = next_tokens(50, {2, 3}, seed=0)
    visited, at = [], 10
    for _ in range(48):
        at = followers[at].item()
        visited.append(at)
    assert sorted(visited) == [n for n in range(50) if n not in (2, 3)]


def test_the_drafter_s_followers_differ_for_the_share_that_is_not_accepted():
    followers = next_tokens(1000, {0}, seed=0)
    other = partly_other(followers, 0.7, {0}, seed=1)
    assert sorted(other.tolist()) == list(range(1000))
    assert (followers == other).float().mean() == pytest.approx(0.7, abs=0.001)


def test_what_was_told_before_is_drafted_without_a_model(shapes):
    with bigram_pair(*shapes, alpha=0.7, device="cpu") as engine:
        prompt = retold(engine, "w10 w20 w30 w40 w50", 60)
        settings = Settings(max_new_tokens=60, temperature=0, gamma=8, drafting="ngram")
        stats = engine.generate(prompt, settings).stats
    assert stats.acceptance_rate == 1
    assert stats.block_efficiency > 7


def test_made_up_shapes_are_benched_like_any_pair(shapes, capsys):
    report = bench_json(
        capsys, "--shapes", *shapes, "--alpha", "0.7", "--device", "cpu", *QUICK, "--gamma", "2"
    )
    assert [lane["lane"] for lane in report["tables"][0]["lanes"]] == [
        "baseline", "speculative, gamma 2", "n-gram, auto", "both, auto",
    ]  # fmt: skip


def test_shapes_of_two_vocabularies_are_refused(shapes, capsys):
    config = json.loads(Path(shapes[1]).read_text())
    Path(shapes[1]).write_text(json.dumps({**config, "vocab_size": 700}))
    assert main(["bench", "--shapes", *shapes, "--device", "cpu"]) == 2
    assert "600 and 700" in capsys.readouterr().err
