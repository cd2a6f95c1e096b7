"""Memory that runs out in an answer: caches of idle conversations go first, then the answer ends in words."""

import copy
import re
import weakref
from dataclasses import replace

import pytest
import torch
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

import specdec_core as sd
from specdec_core.cli.chat import chat
from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import NgramDrafter
from specdec_core.drafting.length import FixedGamma
from specdec_core.out_of_memory import out_of_memory
from specdec_core.runners import RopeSwitchRunner, StepwiseRunner, runner_for
from specdec_core.sampling import DeviceSampling, sampler_for
from specdec_core.sampling.noise import KeyedNoise
from tests.support.failing_memory import ERRORS, FailingEager, FailingStatic, Shortage

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HI = [{"role": "user", "content": "Once upon a time"}]
RULES = {
    "greedy": {"temperature": 0.0},
    "rejection": {"temperature": 1.0},
    "coupled": {"temperature": 1.0, "verification": "coupled"},
    "n-gram": {"temperature": 0.3, "drafting": "ngram"},
    "both": {"temperature": 0.3, "drafting": "both"},
}


def _settings(**changed) -> sd.Settings:
    return sd.Settings(**{"max_new_tokens": 8, "seed": 1, "gamma": 2, **changed})


@pytest.fixture(scope="module")
def make(engine):
    """Make an engine whose target and drafter run out of memory by plan, over copies of the pair's models."""

    def make(kind=FailingEager, target: Shortage | None = None, drafter: Shortage | None = None) -> sd.Engine:
        runners = [
            kind(copy.deepcopy(runner.model), shortage or Shortage())
            for runner, shortage in zip(engine.pair.runners, (target, drafter), strict=True)
        ]
        pair = replace(engine.pair, target=runners[0], drafter=runners[1])
        if kind is FailingStatic:
            # In the place where the pair of a GPU keeps it.
            pair.__dict__["sampling"] = DeviceSampling(torch.device("cpu"), engine.pair.target.vocab_size)
        return sd.Engine(pair, engine.info)

    return make


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [FailingEager, FailingStatic])
@pytest.mark.parametrize("model", ["target", "drafter"])
def test_after_one_shortage_anywhere_the_answer_goes_on_unchanged(make, kind, rule, model):
    settings, whole = _settings(**RULES[rule]), Shortage()
    wanted = make(kind, **{model: whole}).generate(HI, settings)
    shortage = Shortage()
    engine = make(kind, **{model: shortage})
    for at in range(1, whole.calls + 1):
        shortage.calls, shortage.at = 0, {at}
        got = engine.generate(HI, settings)
        assert shortage.calls > at or at == whole.calls
        assert (got.token_ids, got.text) == (wanted.token_ids, wanted.text)
        assert [len(rnd.tokens) for rnd in got.rounds] == [len(rnd.tokens) for rnd in wanted.rounds]
    assert (whole.calls > 0) == (model == "target" or rule != "n-gram")


@pytest.mark.parametrize("kind", [FailingEager, FailingStatic])
@pytest.mark.parametrize("model", ["target", "drafter"])
def test_after_a_second_one_the_answer_ends_with_words_and_the_conversation_goes_on(make, kind, model):
    settings, whole = _settings(temperature=0), Shortage()
    wanted = make(kind, **{model: whole}).generate(HI, settings)
    shortage = Shortage()
    engine = make(kind, **{model: shortage})
    for at in range(1, whole.calls + 1, 3):
        shortage.calls, shortage.at = 0, range(at, 10**6)
        session, text, ids = engine.session(), "", []
        with pytest.raises(sd.AnswerError) as ended:  # noqa: PT012 # the rounds before it are looked at
            for rnd in engine.stream(HI, settings, session):
                text += rnd.text
                ids += [token.id for token in rnd.emitted]
        assert f"Memory ran out on cpu after {sd.counted(len(ids), 'token')} of" in str(ended.value)
        assert ids == wanted.token_ids[: len(ids)]
        assert session.size_bytes == 0
        assert session.sampled.get(text, []) == ids
        shortage.at = ()
        messages = [*HI, {"role": "assistant", "content": text}, {"role": "user", "content": "more"}]
        follow_up = engine.generate(messages, settings, session).token_ids
        assert follow_up == engine.generate(messages, settings, engine.session({text: ids})).token_ids


@pytest.mark.parametrize("error", ERRORS)
def test_every_kind_of_the_error_is_recognized(make, error):
    with pytest.raises(sd.AnswerError, match="Memory ran out"):
        make(target=Shortage({3, 4}, error)).generate(HI, _settings())


def test_another_error_stays_what_it_is(make):
    engine = make()
    engine.pair.target.model.model.layers[-1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.generate(HI, _settings())


def test_idle_conversations_give_their_caches_up_and_busy_ones_keep_theirs(make):
    shortage = Shortage()
    engine = make(target=shortage)
    wanted = engine.generate(HI, _settings(temperature=0)).token_ids
    idle, busy, short = (engine.session() for _ in range(3))
    engine.generate(HI, _settings(), idle)
    other = engine.stream(HI, _settings(temperature=0), busy)
    ids = [token.id for rnd in (next(other), next(other)) for token in rnd.emitted]
    held = busy.size_bytes
    shortage.at = {shortage.calls + 5}
    assert engine.generate(HI, _settings(temperature=0), short).token_ids == wanted
    assert (idle.size_bytes, busy.size_bytes) == (0, held)
    assert ids + [token.id for rnd in other for token in rnd.emitted] == wanted
    assert engine.generate(HI, _settings(temperature=0), idle).token_ids == wanted


def test_no_conversation_gives_anything_up_while_there_is_memory(make):
    engine = make()
    idle = engine.session()
    engine.generate(HI, _settings(), idle)
    engine.generate(HI, _settings(), engine.session())
    assert idle.size_bytes > 0


def test_the_error_keeps_no_memory(make):
    shortage = Shortage()
    engine = make(target=shortage)
    session = engine.session()
    engine.generate(HI, _settings(), session)
    (keys,) = {weakref.ref(layer.keys) for layer in session._caches.target.layers[:1]}
    shortage.at = range(shortage.calls + 4, 10**6)
    with pytest.raises(sd.AnswerError) as ended:
        engine.generate(HI, _settings(), session)
    assert ended.value.__traceback__ is not None
    assert keys() is None


def test_a_shortage_in_a_margin_is_an_answer_error(make):
    shortage = Shortage({1})
    engine = make(target=shortage)
    assert engine.margin(HI, [], _settings(temperature=0)) > 0
    shortage.at = range(10**6)
    with pytest.raises(sd.AnswerError, match="Memory ran out"):
        engine.margin(HI, [], _settings(temperature=0))


def test_transformers_own_generate_gets_a_second_try_before_its_first_step_only(make):
    shortage = Shortage()
    engine = make(target=shortage)
    settings = _settings(temperature=0)

    def answer() -> list[int]:
        rounds = engine.peer_stream(HI, settings, peer="generate")
        return [token.id for rnd in rounds for token in rnd.emitted]

    wanted, calls = answer(), shortage.calls
    shortage.at = {calls + 1}
    assert answer() == wanted
    shortage.at = {shortage.calls + 4}
    with pytest.raises(sd.AnswerError, match="Memory ran out"):
        answer()
    shortage.at = ()
    assert answer() == wanted


def test_in_the_terminal_the_conversation_goes_on_with_what_came(make, monkeypatch, capsys):
    shortage = Shortage()
    engine = make(target=shortage)
    settings = _settings(temperature=0.9, seed=4, gamma=0, max_new_tokens=30)
    whole = engine.generate(HI, settings).rounds
    typed = iter(["Once upon a time", "more"])

    def type_line(shown: str) -> str:
        line = next(typed, "/quit")
        if line != "more":
            shortage.at = {shortage.calls + len(whole) - 1, shortage.calls + len(whole)}
        return line

    monkeypatch.setattr("builtins.input", type_line)
    assert chat(engine, settings) == 0
    printed = capsys.readouterr()
    (emitted,) = re.findall(r"error: Memory ran out on cpu after (\d+) tokens?", printed.err)
    partial = "".join(rnd.text for rnd in whole[: int(emitted)])
    ids = [rnd.tokens[0].id for rnd in whole[: int(emitted)]]
    messages = [*HI, {"role": "assistant", "content": partial}, {"role": "user", "content": "more"}]
    shortage.at = ()
    follow_up = engine.generate(messages, settings, engine.session({partial: ids})).text
    assert partial
    assert printed.out == f"{partial}\n{follow_up}\n"


# Runners whose state is more than keys and values


def _phi3() -> PreTrainedModel:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 24,
    }
    config = Phi3Config(
        **SHAPE, num_attention_heads=4, max_position_embeddings=128, rope_parameters=rope, pad_token_id=None
    )
    config.original_max_position_embeddings = 24
    return Phi3ForCausalLM(config)


def _mamba() -> PreTrainedModel:
    return MambaForCausalLM(MambaConfig(**SHAPE, state_size=4))


@pytest.mark.parametrize(
    ("make_model", "runner", "layers"),
    [(_phi3, RopeSwitchRunner, "model.layers"), (_mamba, StepwiseRunner, "backbone.layers")],
)
def test_a_second_try_starts_from_a_sound_state_in_other_runners_too(make_model, runner, layers):
    torch.manual_seed(1)
    model, shortage = make_model().eval(), Shortage()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    model.get_submodule(layers)[-1].register_forward_pre_hook(lambda *_: shortage.call())
    target = runner_for(model)
    assert isinstance(target, runner)

    def answer() -> list[int]:
        context = list(range(3, 23))
        rounds = Decoding(
            context,
            target,
            target.new_cache(),
            [NgramDrafter()] if target.rewinds else [],
            sampler_for(_settings(), KeyedNoise(1)),
            FixedGamma(2 if target.rewinds else 0),
            lambda ids: (len(ids), None),
            Limits(12, 128),
        ).rounds(lambda: False)
        assert list(rounds)[-1].finish_reason == "length"
        return context[20:]

    shortage.calls = 0
    wanted, calls = answer(), shortage.calls
    assert len(set(wanted)) > 3
    for at in range(1, calls + 1):
        shortage.calls, shortage.at = 0, {at}
        assert answer() == wanted, f"after a shortage in forward {at} of {calls}"


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA error: out of memory",
        "Non-zero status code returned while running FusedMatMul node. Status Message: bfc_arena.cc:376 "
        "Failed to allocate memory for requested buffer of size 4194304",
    ],
)
def test_a_library_s_words_for_memory_that_ran_out_are_known(words):
    assert out_of_memory(RuntimeError(words))
    assert not out_of_memory(RuntimeError(words.replace("memory", "patience")))
