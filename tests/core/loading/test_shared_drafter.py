"""A drafter that reads the target's embedding: loaded in every format, and refused where it does not fit."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import specdec_core as sd
from specdec_core.runners.short_head import ShortHead
from tests.support.shared_drafter import save_shared_drafter
from tests.support.tiny_pair import save_pair

IDS = torch.arange(5, 25)
PROMPT = "Once upon a time"


@pytest.fixture
def target(tmp_path) -> str:
    return save_pair(tmp_path / "pair", hidden_size=64)[0]


@pytest.fixture
def drafter(target, tmp_path) -> str:
    return save_shared_drafter(target, tmp_path / "drafter")


def load(target: str, drafter: str | None, **options) -> sd.Engine:
    return sd.Engine.load(target=target, drafter=drafter, device="cpu", **options)


def refusal(target: str, drafter: str | None) -> str:
    with pytest.raises((sd.LoadError, sd.IncompatiblePairError)) as error:
        load(target, drafter)
    return str(error.value)


def test_it_computes_with_the_targets_embedding_and_its_own_output_layer(target, drafter):
    engine = load(target, drafter)
    runner = engine.pair.drafter
    logits = runner.forward(runner.new_cache(), IDS)
    whole = AutoModelForCausalLM.from_pretrained(target).eval()
    whole.model.layers = whole.model.layers[:1]
    wanted = whole(IDS[None]).logits[0]
    kept = torch.zeros(wanted.shape[1], dtype=torch.bool)
    kept[:300:2] = True
    assert (logits[:, ~kept] == -torch.inf).all()
    spread = wanted[:, kept].std()
    assert (logits[:, kept] - wanted[:, kept]).abs().max() < 0.1 * spread, "weights in 8 bits"
    head = runner.model.get_output_embeddings()
    assert isinstance(head, ShortHead)
    assert runner.model.get_input_embeddings().weight.data_ptr() == (
        engine.pair.target.model.get_input_embeddings().weight.data_ptr()
    )


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("drafter_quantization", ["none", "int8"])
def test_answers_are_the_targets_in_every_format(quantization, drafter_quantization, target, drafter):
    engine = load(target, drafter, quantization=quantization, drafter_quantization=drafter_quantization)
    for temperature in (0.0, 0.8):
        settings = sd.Settings(temperature=temperature, verification="coupled", seed=5, max_new_tokens=30)
        plain = engine.generate(PROMPT, settings.__class__(**_values(settings) | {"gamma": 0}))
        drafted = engine.generate(PROMPT, settings.__class__(**_values(settings) | {"gamma": 3}))
        assert drafted.token_ids == plain.token_ids
        assert drafted.stats.drafted > 0


def _values(settings: sd.Settings) -> dict:
    return {
        name: getattr(settings, name) for name in ("temperature", "verification", "seed", "max_new_tokens")
    }


def test_only_its_own_parameters_are_counted(target, drafter):
    info = load(target, drafter).info
    whole = AutoModelForCausalLM.from_pretrained(target)
    layer = sum(weight.numel() for weight in whole.model.layers[0].parameters())
    assert info.drafter_parameters == layer + 64 + 150 * 64
    report = sd.check_pair(target, drafter)
    size = next(check for check in report.checks if check.name == "size")
    assert size.status == "pass"


def test_transformers_assisted_decoding_takes_it(target, drafter):
    engine = load(target, drafter)
    settings = sd.Settings(temperature=0, gamma=2, max_new_tokens=20)
    ours = engine.generate(PROMPT, settings)
    rounds = list(engine.peer_stream(PROMPT, settings, peer="assisted"))
    assert [
        token.id for each in rounds for token in each.tokens if token.kind not in ("rejected", "untested")
    ][: len(ours.token_ids)] == ours.token_ids


def test_another_targets_embedding_is_refused(target, tmp_path):
    sample = [[at, 3 * at, float((-1) ** at)] for at in range(20)]
    drafter = save_shared_drafter(target, tmp_path / "other", sample=sample)
    text = refusal(target, drafter)
    assert "reads the embedding of owner/target, and the target's has other values" in text


def test_a_target_of_another_width_is_refused_by_the_gate(drafter, tmp_path):
    wide = save_pair(tmp_path / "wide", hidden_size=128)[0]
    report = sd.check_pair(wide, drafter)
    failed = [check for check in report.checks if check.status == "fail"]
    assert [check.name for check in failed] == ["model kind"]
    assert "whose vectors have 64 values; those of this target have 128" in failed[0].explanation


def test_it_is_no_target(drafter):
    assert "it is a drafter for owner/target" in refusal(drafter, None)
    assert "it is a drafter for owner/target" in sd.check_pair(drafter, drafter).checks[0].explanation


@pytest.mark.parametrize(
    "shared", [3, {}, {"of": "x", "head_rows": 3, "sample": []}, {"of": "x", "head_rows": "y"}]
)
def test_a_damaged_configuration_is_told(shared, target, drafter):
    import json

    path = Path(drafter, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shared_embedding": shared}))
    with pytest.raises(sd.PairUncheckableError, match="shared_embedding"):
        sd.check_pair(target, drafter)


def test_missing_and_corrupt_files_are_told(target, drafter):
    first = Path(drafter, "drafter-00001-of-00002.safetensors")
    data = first.read_bytes()
    first.unlink()
    assert "has 1 of 2 files" in refusal(target, drafter)
    first.write_bytes(data[:100])
    assert "are corrupt" in refusal(target, drafter)
