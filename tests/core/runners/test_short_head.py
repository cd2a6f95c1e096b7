"""A drafter that knows only frequent tokens: same logits for those, none for the rest, exact all the same."""

import pytest
import torch

import specdec_core as sd
from specdec_core.presets import read_preset
from specdec_core.runners import runner_for
from specdec_core.runners.short_head import frequent_ids, shorten_head
from tests.support.tiny_models import ARCHITECTURES, VOCAB, tiny_model
from tests.support.tiny_pair import save_pair


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kept_tokens_have_their_logits_and_the_others_none(architecture):
    ids = torch.tensor([5, 6, 7, 8])
    whole = runner_for(tiny_model(architecture))
    wanted = whole.forward(whole.new_cache(), ids)
    model = tiny_model(architecture)
    shorten_head(model, range(0, VOCAB, 3))
    short = runner_for(model)
    got = short.forward(short.new_cache(), ids)
    kept = torch.zeros(VOCAB, dtype=torch.bool)
    kept[::3] = True
    torch.testing.assert_close(got[:, kept], wanted[:, kept], atol=1e-4, rtol=1e-4)
    assert (got[:, ~kept] <= -30).all(), "Gemma 2 caps its logits at 30, all others leave -inf"


def test_what_ends_an_answer_is_kept_first_then_the_most_frequent_then_the_lowest_ids():
    assert frequent_ids(5, 100, [42], [7, 9, 9, 7, 9, 3]) == [42, 9, 7, 3, 0]


def test_no_more_than_there_are():
    assert sorted(frequent_ids(500, 10, [3])) == list(range(10))


PRESET = """
title = "small"
description = "for a test"
license = "none"
drafter_vocabulary = {size}
{text}
[target]
model = "./target"
[drafter]
model = "./drafter"
"""


@pytest.fixture
def short_preset(tmp_path):
    """A preset whose drafter knows the characters of one text and what ends an answer."""
    save_pair(tmp_path)
    (tmp_path / "words.txt").write_text("Once upon a time there was a little dog.")
    file = tmp_path / "short.toml"
    file.write_text(PRESET.format(size=24, text='drafter_vocabulary_text = "./words.txt"'))
    return read_preset(file)


def test_a_preset_shortens_its_drafter_and_the_text_stays_the_baseline_s(short_preset):
    engine = sd.Engine.load(short_preset, device="cpu")
    message = [{"role": "user", "content": "Once upon a time"}]
    kept = set(engine.pair.drafter.model.get_output_embeddings().ids.tolist())
    for settings in ({"temperature": 0}, {"temperature": 1.0, "verification": "coupled", "seed": 3}):
        common = {"max_new_tokens": 40, **settings}
        wanted = engine.generate(message, sd.Settings(gamma=0, **common)).token_ids
        result = engine.generate(message, sd.Settings(gamma=3, **common))
        assert result.token_ids == wanted
        assert {t.id for rnd in result.rounds for t in rnd.drafted} <= kept


def test_a_missing_or_outside_text_is_named(tmp_path):
    save_pair(tmp_path)
    file = tmp_path / "wrong.toml"
    for text, said in (("./none.txt", "no file"), ("../../etc/passwd", "leaves the presets folder")):
        file.write_text(PRESET.format(size=9, text=f'drafter_vocabulary_text = "{text}"'))
        with pytest.raises(sd.PresetError, match=said):
            read_preset(file)
