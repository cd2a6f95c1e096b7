"""Bans of everything that a drafter with a shortened output layer puts out."""

import pytest

import specdec_core as sd
from specdec_core.runners.short_head import ShortHead
from tests.support.tiny_pair import save_pair

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> sd.Engine:
    folder = tmp_path_factory.mktemp("pair")
    save_pair(folder)
    preset = sd.Preset.model_validate(
        {
            "name": "short",
            "title": "t",
            "description": "d",
            "license": "MIT",
            "target": {"model": str(folder / "target")},
            "drafter": {"model": str(folder / "drafter")},
            "drafter_vocabulary": 20,
        }
    )
    return sd.Engine.load(preset, device="cpu")


@pytest.fixture(scope="module")
def kept(engine) -> list[int]:
    head = engine.pair.drafter.model.get_output_embeddings()
    assert isinstance(head, ShortHead)
    return head.kept_ids().tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_they_are_refused_with_the_reason_or_answered_without_drafts(engine, kept, temperature):
    settings = {"temperature": temperature, "max_new_tokens": 12, "seed": 1, "banned_tokens": kept}
    with pytest.raises(sd.SettingsError, match="every token that the drafter puts out"):
        engine.generate(PROMPT, sd.Settings(gamma=3, **settings))
    plain = engine.generate(PROMPT, sd.Settings(gamma=0, **settings))
    assert not set(plain.token_ids) & set(kept)
    assert engine.generate(PROMPT, sd.Settings(gamma="auto", **settings)).token_ids == plain.token_ids
    ngram = sd.Settings(gamma=3, drafting="ngram", **settings)
    assert not set(engine.generate(PROMPT, ngram).token_ids) & set(kept)


def test_beside_n_grams_they_leave_the_model_out(engine, kept):
    settings = sd.Settings(gamma="auto", drafting="both", max_new_tokens=12, seed=1, banned_tokens=kept)
    assert engine.pair.feasible(settings).drafting == "ngram"
    result = engine.generate(PROMPT, settings)
    assert not set(result.token_ids) & set(kept)
    assert "model" not in {rnd.source for rnd in result.rounds}


def test_one_token_less_is_no_reason(engine, kept):
    settings = sd.Settings(gamma=3, temperature=1.0, max_new_tokens=12, seed=1, banned_tokens=kept[1:])
    rounds = engine.generate(PROMPT, settings).rounds
    assert {token.id for rnd in rounds for token in rnd.drafted} == {kept[0]}
