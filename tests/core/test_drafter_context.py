"""A drafter whose context is shorter than the target's: past its end an answer goes on without drafts."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import specdec_core as sd
from specdec_core.cli import main
from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import ModelDrafter
from specdec_core.drafting.length import FixedGamma, GammaChoice
from specdec_core.loading.memory import memory_need
from specdec_core.loading.weights import ModelSource
from specdec_core.sampling import sampler_for
from specdec_core.sampling.noise import KeyedNoise

DRAFTER_CONTEXT = 48
TARGET_CONTEXT = 512
HI = "Once upon a time there was a little dog who lived in a big house"
RULES = {
    "greedy": {"temperature": 0.0},
    "coupled": {"temperature": 1.0, "verification": "coupled"},
}


@pytest.fixture(scope="module")
def folders(pair_folders, tmp_path_factory) -> tuple[str, str]:
    """The pair's target, and a GPT-2 whose learned positions end: past them its forward is an IndexError."""
    folder = tmp_path_factory.mktemp("short") / "drafter"
    tokenizer = AutoTokenizer.from_pretrained(pair_folders[0])
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=DRAFTER_CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return pair_folders[0], str(folder)


@pytest.fixture(scope="module")
def short(folders) -> sd.Engine:
    return sd.Engine.load(target=folders[0], drafter=folders[1], device="cpu")


def _settings(**changed) -> sd.Settings:
    return sd.Settings(**{"max_new_tokens": 60, "seed": 2, "gamma": 4, "temperature": 0.0, **changed})


def _without_end(engine: sd.Engine) -> sd.Engine:
    return sd.Engine(replace(engine.pair, eos_ids=frozenset()), engine.info)


def test_the_context_is_the_target_s_and_the_end_of_drafts_is_told(short, engine):
    assert (short.info.context_length, short.info.drafter_context_length) == (TARGET_CONTEXT, DRAFTER_CONTEXT)
    assert engine.info.drafter_context_length is None


@pytest.mark.parametrize("gamma", [1, 4, 16, "auto"])
@pytest.mark.parametrize("rule", RULES)
def test_past_the_drafter_s_end_the_answer_is_still_the_baseline_s(short, rule, gamma):
    engine = _without_end(short)
    baseline = engine.generate(HI, _settings(gamma=0, **RULES[rule])).token_ids
    result = engine.generate(HI, _settings(gamma=gamma, **RULES[rule]))
    assert len(result.prompt_token_ids) < DRAFTER_CONTEXT < len(result.prompt_token_ids) + 40
    assert result.token_ids == baseline


@pytest.mark.parametrize("gamma", [1, 4, 16])
def test_drafts_end_where_the_drafter_s_context_does_and_the_rounds_say_why(short, gamma):
    result = _without_end(short).generate(HI, _settings(gamma=gamma))
    for rnd in result.rounds[1:]:
        length = len(result.prompt_token_ids) + rnd.position
        past = length > DRAFTER_CONTEXT
        assert rnd.gamma_reason == ("drafter_context" if past else "fixed")
        left_in_answer = 60 - rnd.position - 1
        assert rnd.gamma == max(0, min(gamma, DRAFTER_CONTEXT - length + 1, left_in_answer))
        assert rnd.gamma_cut == (not past and rnd.gamma < gamma)
        assert len(rnd.drafted) == rnd.gamma
    assert {rnd.gamma_reason for rnd in result.rounds[1:]} == {"fixed", "drafter_context"}


def test_the_last_draft_may_lie_one_past_the_drafter_s_end(short):
    """The drafter computes its last position's logits, and no more."""
    pair = short.pair
    drafter = ModelDrafter(pair.drafter, pair.drafter.new_cache())
    sampler = sampler_for(_settings(), KeyedNoise(1))
    context = [5] * DRAFTER_CONTEXT
    offer = drafter.offer(context)
    assert offer is not None
    assert offer.room == 1
    sampler.start_round(context, 1)
    drafter.propose(context, 1, sampler)
    assert drafter.cache.length == DRAFTER_CONTEXT
    assert drafter.offer([*context, 5]) is None


@pytest.mark.parametrize("first_tokens", [4, 60])
def test_follow_ups_go_on_from_before_and_past_the_end(short, first_tokens):
    engine = _without_end(short)
    session = engine.session()
    messages = [{"role": "user", "content": HI}]
    for text in ("more", "and then?"):
        settings = _settings(max_new_tokens=first_tokens)
        first = engine.generate(messages, settings, session)
        messages = [
            *messages,
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": text},
        ]
        sampled = {text: list(ids) for text, ids in session.sampled.items()}
        result = engine.generate(messages, _settings(), session)
        baseline = engine.generate(messages, _settings(gamma=0), engine.session(sampled))
        assert result.token_ids == baseline.token_ids
        assert result.stats.cached_prompt_tokens > 0


def test_a_conversation_is_not_cut_where_the_drafter_ends(short):
    messages = [
        {"role": role, "content": f"turn {n} " + "word " * 6}
        for n in range(3)
        for role in ("user", "assistant")
    ]
    messages.append({"role": "user", "content": "the last"})
    for gamma in (0, 4):
        result = short.generate(messages, _settings(gamma=gamma, max_new_tokens=8))
        assert len(result.prompt_token_ids) > DRAFTER_CONTEXT
        assert result.stats.dropped_messages == 0


def test_the_answer_may_fill_the_target_s_context(short):
    result = _without_end(short).generate(HI, _settings(max_new_tokens=1000))
    assert result.finish_reason == "context"
    assert len(result.prompt_token_ids) + len(result.token_ids) == TARGET_CONTEXT


def test_n_gram_drafts_do_not_end_there(short):
    result = _without_end(short).generate(HI, _settings(drafting="ngram", max_new_tokens=200))
    assert "drafter_context" not in {rnd.gamma_reason for rnd in result.rounds}
    late = [rnd for rnd in result.rounds if rnd.position > DRAFTER_CONTEXT]
    assert sum(len(rnd.drafted) for rnd in late) > 0


def test_where_both_draft_n_grams_go_on_past_it(short):
    result = _without_end(short).generate(HI, _settings(drafting="both", max_new_tokens=200))
    late = {rnd.source for rnd in result.rounds if rnd.position > DRAFTER_CONTEXT}
    assert late <= {"ngram", None}
    assert "ngram" in late


def test_rounds_without_room_for_drafts_are_no_evidence_for_the_policy(short):
    class Counting(FixedGamma):
        chosen = observed = 0

        def choose(self, offers) -> GammaChoice:
            Counting.chosen += bool(offers)
            return super().choose(offers)

        def observe(self, *arguments) -> None:
            Counting.observed += 1

    pair, context = short.pair, short.pair.prompter.encode(HI)
    settings = _settings()
    rounds = Decoding(
        context,
        pair.target,
        pair.target.new_cache(),
        [ModelDrafter(pair.drafter, pair.drafter.new_cache())],
        sampler_for(settings, KeyedNoise(1)),
        Counting(4),
        lambda ids: (len(ids), None),
        Limits(60, TARGET_CONTEXT),
    ).rounds(lambda: False)
    reasons = [rnd.gamma_reason for rnd in rounds]
    assert Counting.observed == Counting.chosen == reasons.count("fixed") > 0
    assert reasons.count("drafter_context") > 0


def test_assisted_generation_ends_where_its_assistant_does(short):
    lengths = {}
    prompt = short.pair.prompter.encode(HI)
    for peer in ("generate", "assisted"):
        rounds = list(_without_end(short).peer_stream(HI, _settings(), peer=peer))
        lengths[peer] = len(prompt) + len(sd.emitted_ids(rounds))
    assert lengths["generate"] == len(prompt) + 60
    assert lengths["assisted"] <= DRAFTER_CONTEXT


def test_the_plan_of_memory_has_room_for_the_target_s_context(folders, pair_folders):
    cpu = torch.device("cpu")
    alone = memory_need([ModelSource(folders[0])], cpu)
    both = memory_need([ModelSource(folder) for folder in folders], cpu)
    drafter = memory_need([ModelSource(folders[1])], cpu)
    assert both.positions == TARGET_CONTEXT
    assert both.cache_bytes == alone.cache_bytes + drafter.cache_bytes


def test_a_drafter_with_a_longer_context_adds_nothing_past_the_target_s(pair_folders, folders):
    cpu = torch.device("cpu")
    swapped = memory_need([ModelSource(folders[1]), ModelSource(folders[0])], cpu)
    alone = memory_need([ModelSource(folders[0])], cpu)
    assert swapped.positions == DRAFTER_CONTEXT
    assert swapped.cache_bytes < alone.cache_bytes


def test_the_command_line_says_where_drafts_end(folders, capsys):
    command = ["generate", "--target", folders[0], "--drafter", folders[1], "--prompt", HI, "--json"]
    assert (
        main([*command, "--max-new-tokens", "40", "--temperature", "0", "--gamma", "2", "--device", "cpu"])
        == 0
    )
    printed = capsys.readouterr()
    assert f"drafts end after {DRAFTER_CONTEXT} tokens" in printed.err
    reasons = {rnd["gamma_reason"] for rnd in json.loads(printed.out)["rounds"]}
    assert "drafter_context" in reasons
