"""A loaded pair as callers meet it: streams, results, sessions, cancelling, limits, loading errors."""

import dataclasses
import json
import re
import shutil
import threading
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core.runners.onnx.call import Call
from tests.support.tiny_pair import byte_level_tokenizer

HI = [{"role": "user", "content": "Once upon a time"}]


def _settings(**changed) -> sd.Settings:
    return sd.Settings(**{"max_new_tokens": 24, "seed": 1, "temperature": 1.0, **changed})


def _follow_up(messages, answer, text="more"):
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": text}]


def test_a_result_is_what_the_stream_said(engine):
    rounds = list(engine.stream(HI, _settings()))
    result = engine.generate(HI, _settings())
    assert "".join(rnd.text for rnd in rounds) == result.text
    assert [t.id for rnd in rounds for t in rnd.emitted] == result.token_ids
    assert [rnd.finish_reason for rnd in rounds[:-1]] == [None] * (len(rounds) - 1)
    assert [rnd.stats for rnd in rounds[:-1]] == [None] * (len(rounds) - 1)
    assert result.finish_reason in ("length", "eos")
    assert result.stats.new_tokens == len(result.token_ids)


def test_positions_and_indexes_count_on(engine):
    rounds = engine.generate(HI, _settings()).rounds
    assert [rnd.index for rnd in rounds] == list(range(len(rounds)))
    at = 0
    for rnd in rounds:
        assert rnd.position == at
        at += len(rnd.emitted)


def test_every_round_is_accepted_drafts_then_at_most_one_rejected_then_untested_then_the_target_s(engine):
    order = {"accepted": 0, "rejected": 1, "untested": 2, "correction": 3, "bonus": 3, "plain": 3}
    kinds = set()
    for seed in range(6):
        rounds = engine.generate(HI, _settings(seed=seed)).rounds
        assert [t.kind for t in rounds[0].tokens] == ["plain"]
        for rnd in rounds[1:]:
            of_round = [token.kind for token in rnd.tokens]
            kinds.update(of_round)
            assert [order[k] for k in of_round] == sorted(order[k] for k in of_round)
            assert of_round.count("rejected") <= 1
            assert ("correction" in of_round) == ("rejected" in of_round)
    assert {"accepted", "rejected", "untested", "correction", "bonus"} <= kinds


def test_every_draft_comes_with_p_and_q(engine):
    for rnd in engine.generate(HI, _settings()).rounds[1:]:
        for token in rnd.drafted:
            assert 0 <= token.target_prob <= 1
            assert 0 < token.drafter_prob <= 1
        if rnd.tokens[-1].kind == "correction":
            assert rnd.tokens[-1].target_prob > 0


def test_the_baseline_is_all_plain(engine):
    result = engine.generate(HI, _settings(gamma=0))
    assert {t.kind for rnd in result.rounds for t in rnd.tokens} == {"plain"}
    assert result.stats.acceptance_rate is None
    assert result.stats.block_efficiency == 1


def test_coupled_with_a_seed_gives_the_baseline_s_text(engine):
    common = {"verification": "coupled", "seed": 9}
    wanted = engine.generate(HI, _settings(gamma=0, **common)).token_ids
    for gamma in (1, 4, "auto"):
        assert engine.generate(HI, _settings(gamma=gamma, **common)).token_ids == wanted


@pytest.mark.parametrize("drafting", ["model", "ngram", "both"])
def test_greedy_is_the_baseline_s_text_whoever_drafts(engine, drafting):
    wanted = engine.generate(HI, _settings(gamma=0, temperature=0, max_new_tokens=60)).token_ids
    result = engine.generate(HI, _settings(gamma=4, temperature=0, max_new_tokens=60, drafting=drafting))
    assert result.token_ids == wanted


def test_a_trace_goes_to_json_and_back(engine):
    rounds = engine.generate(HI, _settings()).rounds
    text = json.dumps([rnd.to_dict() for rnd in rounds])
    assert [sd.Round.from_dict(data) for data in json.loads(text)] == rounds


def test_an_eos_ends_the_answer_and_is_in_the_ids_but_not_in_the_text(engine):
    tokenizer = byte_level_tokenizer()
    for seed in range(200):
        result = engine.generate(HI, _settings(seed=seed, max_new_tokens=300, temperature=1.5))
        if result.finish_reason == "eos":
            break
    assert result.token_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in result.token_ids[:-1]
    assert "<|end|>" not in result.text
    assert result.rounds[-1].emitted[-1].id == tokenizer.eos_token_id


def test_a_stop_string_ends_the_text_before_it(engine):
    whole = engine.generate(HI, _settings(temperature=0)).text
    stop = whole[5:8]
    for gamma in (0, 1, 5):
        result = engine.generate(HI, _settings(temperature=0, gamma=gamma, stop=[stop]))
        assert result.finish_reason == "stop"
        assert result.text == whole[: whole.index(stop)]


def test_a_session_prefills_only_what_it_has_not_seen(engine):
    session = engine.session()
    first = engine.generate(HI, _settings(), session)
    second = engine.generate(_follow_up(HI, first.text), _settings(), session)
    assert second.prompt_token_ids[: len(first.prompt_token_ids)] == first.prompt_token_ids
    seen = len(first.prompt_token_ids) + len(first.token_ids) - 1
    assert second.stats.cached_prompt_tokens >= seen - 1
    alone = engine.generate(second.rounds and _follow_up(HI, first.text), _settings())
    assert alone.stats.cached_prompt_tokens == 0


def test_a_session_answers_as_a_fresh_one_would(engine):
    session = engine.session()
    first = engine.generate(HI, _settings(temperature=0), session)
    messages = _follow_up(HI, first.text)
    kept = engine.generate(messages, _settings(temperature=0), session)
    prompt_ids = kept.prompt_token_ids
    fresh = engine.session()
    engine.generate(HI, _settings(temperature=0), fresh)
    again = engine.generate(messages, _settings(temperature=0), fresh)
    assert again.prompt_token_ids == prompt_ids
    assert again.token_ids == kept.token_ids


def test_a_changed_conversation_rewinds_to_what_is_still_true(engine):
    session = engine.session()
    engine.generate(HI, _settings(), session)
    other = [{"role": "user", "content": "Once upon a house"}]
    result = engine.generate(other, _settings(temperature=0), session)
    assert 0 < result.stats.cached_prompt_tokens < len(result.prompt_token_ids)
    assert result.token_ids == engine.generate(other, _settings(temperature=0)).token_ids


def test_an_answer_that_was_taken_back_is_forgotten_and_what_stood_before_it_is_not_fed_again(engine):
    session = engine.session()
    first = engine.generate(HI, _settings(), session)
    asked = _follow_up(HI, first.text)
    taken_back = engine.generate(asked, _settings(seed=2), session)
    again = engine.generate(asked, _settings(seed=3), session)
    assert again.stats.cached_prompt_tokens == len(again.prompt_token_ids) - 1
    assert again.prompt_token_ids == taken_back.prompt_token_ids
    assert (
        again.token_ids
        == engine.generate(asked, _settings(seed=3), engine.session(session.sampled)).token_ids
    )
    assert set(session.sampled) == {first.text, again.text} != {first.text, taken_back.text}


def test_sessions_do_not_meet(engine):
    alone = [engine.generate(HI, _settings(seed=s)).token_ids for s in range(2)]
    streams = [engine.stream(HI, _settings(seed=s), engine.session()) for s in range(2)]
    got = [[], []]
    live = {0, 1}
    while live:
        for which in sorted(live):
            rnd = next(streams[which], None)
            if rnd is None:
                live.discard(which)
            else:
                got[which] += [t.id for t in rnd.emitted]
    assert got == alone


def test_many_threads_each_get_their_own_answer(engine):
    wanted = [engine.generate(HI, _settings(seed=s)).token_ids for s in range(6)]
    got: dict[int, list[int]] = {}

    def answer(seed: int) -> None:
        got[seed] = engine.generate(HI, _settings(seed=seed)).token_ids

    threads = [threading.Thread(target=answer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[seed] for seed in range(6)] == wanted


def test_cancelling_ends_with_stats_and_the_session_serves_on(engine):
    cancel = threading.Event()
    session = engine.session()
    rounds = []
    for rnd in engine.stream(HI, _settings(max_new_tokens=400, seed=2), session, cancel):
        rounds.append(rnd)
        if len(rounds) == 3:
            cancel.set()
    assert rounds[-1].finish_reason == "cancelled"
    assert rounds[-1].stats.new_tokens == sum(len(rnd.emitted) for rnd in rounds)
    assert engine.generate(HI, _settings(), session).text


def test_a_stream_that_is_left_early_frees_its_session(engine):
    session = engine.session()
    stream = engine.stream(HI, _settings(), session)
    next(stream)
    with pytest.raises(sd.SpecDecError, match="still being answered"):
        next(engine.stream(HI, _settings(), session))
    stream.close()
    assert engine.generate(HI, _settings(), session).text


def test_a_long_conversation_loses_its_oldest_turns_and_says_so(engine):
    messages = []
    for n in range(30):
        messages += [{"role": "user", "content": f"turn {n} " + "word " * 20}]
        messages += [{"role": "assistant", "content": "yes"}]
    messages.append({"role": "user", "content": "the last"})
    result = engine.generate(messages, _settings())
    dropped = result.stats.dropped_messages
    assert dropped > 0
    assert "the last" in byte_level_tokenizer().decode(result.prompt_token_ids)
    room = engine.info.context_length - min(_settings().max_new_tokens, engine.info.context_length // 4)
    assert len(result.prompt_token_ids) <= room
    assert len(engine.pair.prompter.encode(messages[dropped - 2 :])) > room, "no turn more than needed"


@pytest.mark.parametrize(
    "prompt", ["", "x " * 50_000, "\ud83d", [], [{"role": "user", "content": "x" * 100_000}]], ids=str
)
def test_a_prompt_that_cannot_be_answered_is_a_prompt_error_and_nothing_is_lost(engine, prompt):
    session = engine.session()
    engine.generate(HI, _settings(), session)
    with pytest.raises(sd.PromptError):
        engine.generate(prompt, _settings(), session)
    assert engine.generate(HI, _settings(), session).stats.cached_prompt_tokens > 0


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": -1}, {"gamma": 2.5}, {"gamma": "fast"}, {"top_p": 0}, {"top_p": 1.1}, {"temperature": -1},
     {"temperature": float("nan")}, {"top_k": -1}, {"min_p": 1.0}, {"max_new_tokens": 0}, {"seed": "x"},
     {"stop": [""]}, {"stop": "text"}, {"drafting": "magic"}, {"verification": "none"}, {"gamma": True}],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(sd.SettingsError, match=next(iter(wrong))):
        sd.Settings(**wrong)


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ({"gamma": 2}, "pass Settings(gamma=2)"),
        ({"gamma": 2, "temperature": 0}, "pass Settings(gamma=2, temperature=0)"),
        ({}, "pass Settings()"),
        ({"speed": 3}, "pass Settings(gamma=4)"),
        (0, "pass Settings(gamma=4)"),
        ("greedy", "pass Settings(gamma=4)"),
    ],
    ids=str,
)
def test_settings_of_another_type_are_a_settings_error_with_an_example(engine, given, example):
    for use in (
        lambda: engine.generate(HI, given),
        lambda: engine.stream(HI, given),
        lambda: list(engine.peer_stream(HI, given, peer="generate")),
        lambda: engine.margin(HI, [], given),
        lambda: next(engine.session().rounds(HI, given, lambda: False)),
    ):
        with pytest.raises(sd.SettingsError, match=re.escape(example)):
            use()


def test_caches_beyond_the_bound_are_taken_from_the_session_that_was_idle_longest(pair_folders):
    target, drafter = pair_folders
    small = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    sessions = [small.session() for _ in range(3)]
    small.generate(HI, _settings(), sessions[0])
    small.max_cache_bytes = 2 * sessions[0].size_bytes
    for session in sessions[1:]:
        small.generate(HI, _settings(), session)
    assert [session.size_bytes > 0 for session in sessions] == [False, True, True]
    assert small.generate(HI, _settings(), sessions[0]).stats.cached_prompt_tokens == 0


def test_a_target_alone_decodes_plainly_and_drafts_from_its_own_text(pair_folders):
    alone = sd.Engine.load(target=pair_folders[0], device="cpu")
    assert alone.default_settings.gamma == 0
    assert alone.generate(HI, _settings(gamma=0)).text
    assert alone.generate(HI, _settings(gamma=4, drafting="ngram")).text
    with pytest.raises(sd.SettingsError, match="No drafter"):
        alone.generate(HI, _settings(gamma=4))


def test_unloading_refuses_new_answers_and_lets_those_in_progress_end(pair_folders):
    target, drafter = pair_folders
    short_lived = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    stream = short_lived.stream(HI, _settings(), short_lived.session())
    next(stream)
    unloading = threading.Thread(target=short_lived.unload)
    unloading.start()
    rest = list(stream)
    unloading.join(timeout=30)
    assert not unloading.is_alive()
    assert rest[-1].finish_reason in ("length", "eos")
    with pytest.raises(sd.LoadError, match="unloaded"):
        short_lived.generate(HI)


def _copy(folder: str, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_folder_without_weights_says_so(pair_folders, tmp_path):
    bare = _copy(pair_folders[0], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(sd.LoadError, match="no weights"):
        sd.Engine.load(target=str(bare), drafter=pair_folders[1])


@pytest.mark.parametrize("harm", ["truncated", "garbage"])
def test_corrupt_weights_are_named(pair_folders, tmp_path, harm):
    folder = _copy(pair_folders[0], tmp_path / "corrupt")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if harm == "truncated" else b"not safetensors at all")
    with pytest.raises(sd.LoadError, match=r"corrupt"):
        sd.Engine.load(target=str(folder), drafter=pair_folders[1])


def test_weights_of_another_shape_than_the_config_are_refused(pair_folders, tmp_path):
    folder = _copy(pair_folders[0], tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(sd.LoadError, match=r"has 6 weights of another shape than its config\.json says"):
        sd.Engine.load(target=str(folder), drafter=pair_folders[1])


def test_missing_weights_are_refused_and_not_made_up(pair_folders, tmp_path):
    folder = _copy(pair_folders[0], tmp_path / "more-layers")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3}
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(sd.LoadError, match=r"lacks .*layers\.2"):
        sd.Engine.load(target=str(folder), drafter=pair_folders[1])


def test_an_incompatible_pair_is_refused_before_any_weight_is_read(pair_folders, tmp_path):
    other = tmp_path / "drafter"
    shutil.copytree(pair_folders[1], other)
    byte_level_tokenizer(vocab_size=380).save_pretrained(other)
    (other / "model.safetensors").write_bytes(b"would fail if it were read")
    with pytest.raises(sd.IncompatiblePairError) as refusal:
        sd.Engine.load(target=pair_folders[0], drafter=str(other))
    assert not refusal.value.report.ok


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps"])
def test_a_device_that_is_not_there_is_named(pair_folders, device):
    with pytest.raises(sd.LoadError, match=r"[Dd]evice|CUDA"):
        sd.Engine.load(target=pair_folders[0], device=device)


def test_quantization_on_the_cpu_is_refused_with_the_reason(pair_folders):
    with pytest.raises(sd.LoadError, match="needs a CUDA device"):
        sd.Engine.load(target=pair_folders[0], device="cpu", quantization="nf4")


def test_neither_or_both_of_preset_and_target_is_refused(pair_folders):
    for arguments in ({}, {"preset": "stories", "target": pair_folders[0]}):
        with pytest.raises(sd.SettingsError, match="either a preset or a target"):
            sd.Engine.load(**arguments)


def test_what_is_loaded_is_told(engine, pair_folders):
    info = dataclasses.asdict(engine.info)
    assert info["target"] == pair_folders[0]
    assert info["runner"] == "onnx"
    assert info["dtype"] == "float32"
    assert info["target_parameters"] > 0


def test_an_answer_that_broke_off_inside_a_forward_does_not_spoil_the_session(engine, monkeypatch):
    session = engine.session()
    whole = Call.run

    def broken(call, ids, end):
        whole(call, ids, end)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Call, "run", broken)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(HI, _settings(temperature=0), session)
    wanted = engine.generate(HI, _settings(temperature=0)).token_ids
    assert engine.generate(HI, _settings(temperature=0), session).token_ids == wanted


def test_a_session_of_another_engine_is_refused(engine, pair_folders):
    other = sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    with pytest.raises(sd.LoadError, match="another pair"):
        engine.stream(HI, _settings(), other.session())


def test_an_answer_that_is_cut_off_by_unloading_ends_as_cancelled(pair_folders):
    short_lived = sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    stream = short_lived.stream(HI, _settings(max_new_tokens=300), short_lived.session())
    next(stream)
    short_lived.unload(timeout_s=0.05)
    assert list(stream)[-1].finish_reason == "cancelled"


def test_a_tiny_temperature_is_greedy_and_prints_numbers(engine):
    wanted = engine.generate(HI, _settings(temperature=0)).token_ids
    assert engine.generate(HI, _settings(temperature=1e-46)).token_ids == wanted


@pytest.mark.parametrize("prompt", [None, 5, iter([])], ids=["none", "number", "iterator"])
def test_a_prompt_of_another_type_is_a_prompt_error(engine, prompt):
    with pytest.raises(sd.PromptError):
        engine.generate(prompt, _settings())


def test_a_margin_is_the_distance_of_the_two_best_scores(engine):
    messages = [{"role": "user", "content": "Once upon a time"}]
    settings = sd.Settings(temperature=0.0, gamma=0, max_new_tokens=6)
    answer = engine.generate(messages, settings).token_ids
    at_first, later = engine.margin(messages, [], settings), engine.margin(messages, answer[:3], settings)
    assert at_first > 0
    assert later > 0
    assert at_first != later
