"""Training of the stories pair on a few steps: losses fall, and the export loads."""

import argparse
import json
import random
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from training.stories import documents, pair, train, training
from training.stories.distillation import distillation_loss, draw_prompts, sample_answers
from training.stories.documents import SEPARATOR, Document, DocumentWriter, stack
from training.stories.evaluation import held_out_loss

STEPS = 20


def _stories() -> list[str]:
    """Invented stories of a few sentences, in which the animals and things are used as nouns are."""
    animals, things = ("fox", "dog", "bear", "frog", "duck", "cat"), ("ball", "boat", "kite", "box", "hat")
    return [
        f"Once there was a {animal}. The {animal} was {mood} and had a {thing}. One day it was lost. "
        f"The {animal} looked for the {thing} in the {place}. A bird saw the {thing} and gave it back. "
        f"The {animal} said thank you, and the bird was glad."
        for animal, thing, place, mood in product(animals, things, ("garden", "wood"), ("happy", "small"))
    ]


@pytest.fixture
def small(monkeypatch):
    """Sizes of a test, and no compiler, which would take longer than the training."""
    monkeypatch.setattr(pair, "LAYERS", 2)
    monkeypatch.setattr(pair, "HIDDEN", 64)
    monkeypatch.setattr(pair, "HEAD", 16)
    monkeypatch.setattr(train, "VOCABULARY", 400)
    monkeypatch.setattr(train, "HELD_OUT", 8)
    monkeypatch.setattr(train, "SAMPLED_AT_ONCE", 4)
    # In bfloat16, which not every machine computes in hardware, a step of the real size takes eight seconds.
    monkeypatch.setattr(documents, "ROW_LENGTHS", (256,))
    monkeypatch.setattr(train, "TARGET_BATCH", 256)
    monkeypatch.setattr(train, "DRAFTER_BATCH", 256)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    # The trainer reads its clock twice a step: a budget in time is one in steps, however fast the machine is.
    ticks = count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 2))


@pytest.fixture
def options(tmp_path) -> argparse.Namespace:
    corpus = tmp_path / "stories.txt"
    corpus.write_text(f"\n{SEPARATOR}\n".join(2 * _stories()))
    return argparse.Namespace(
        corpus=corpus,
        extra=None,
        work=tmp_path / "work",
        into=tmp_path / "pair",
        minutes=STEPS / 60,
        resume=False,
        source=None,
        sampled_tokens=1000,
    )


def _losses(folder: Path, fresh: LlamaForCausalLM, documents: list[Document]) -> tuple[float, float]:
    """Return the held-out loss before and after a training."""
    before = held_out_loss(fresh, documents)
    return before, held_out_loss(train.load_best(folder, fresh), documents)


def _distillation_losses(
    folder: Path, target: LlamaForCausalLM, fresh: LlamaForCausalLM, documents: list[Document]
) -> tuple[float, float]:
    batch = stack(documents, target.config.pad_token_id)
    with torch.no_grad():
        before = distillation_loss(target, fresh.eval(), *batch).item()
        return before, distillation_loss(target, train.load_best(folder, fresh), *batch).item()


@pytest.mark.slow
def test_a_few_steps_lower_both_losses_and_export_a_pair_that_loads(small, options):
    train.train_target(options)
    tokenizer = AutoTokenizer.from_pretrained(options.work / "tokenizer")
    corpus = train.read_corpus(options.corpus, None)
    held_out = train.held_out_documents(tokenizer, corpus)
    target = pair.make_target(tokenizer, seed=1)
    before, after = _losses(options.work / "target", target, held_out)
    assert after < 0.9 * before

    train.train_drafter(options)
    drafter = pair.make_drafter(target, tokenizer)
    before, after = _distillation_losses(options.work / "drafter", target, drafter, held_out)
    assert after < before

    train.export_pair(options)
    for name, trained in (("target", target), ("drafter", drafter)):
        folder = options.into / name
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for key, weight in trained.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], weight), key
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
        assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(tokenizer)


def test_the_target_writes_the_answers_that_the_drafter_learns(small):
    tokenizer = train.train_tokenizer(_stories(), 400)
    writer = DocumentWriter(tokenizer, _stories(), train.TopicFinder(_stories()))
    prompts = draw_prompts(writer, 3, random.Random(1))
    answers = sample_answers(pair.make_target(tokenizer, seed=1), prompts, 0.8, most_tokens=12)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.ids[: len(prompt)] == prompt
        assert answer.learned == [False] * len(prompt) + [True] * (len(answer.ids) - len(prompt))
        assert 0 < sum(answer.learned) <= 12
