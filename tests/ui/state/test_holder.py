"""The shared pair and its visitors: replacement after the last answer, cancellation, isolation."""

import pytest

import specdec_core as sd
from specdec_ui.loading import handlers as load_handlers
from specdec_ui.state.holder import BusyError, EngineHolder, NothingLoadedError
from specdec_ui.state.visitors import IDLE_S, Visitor, Visitors
from tests.support.replay import ReplayEngine, load_in_turn, no_progress, replay_preset, replay_presets


def holder_of(*engines):
    return EngineHolder(load_in_turn(*engines))


def test_a_replaced_pair_is_unloaded_when_its_last_answer_has_ended():
    first, second = ReplayEngine(), ReplayEngine()
    holder = holder_of(first, second)
    holder.load(replay_preset("a"), no_progress)
    rounds = Visitor().ask("Hello", sd.Settings(), holder)
    next(rounds), next(rounds)
    holder.load(replay_preset("b"), no_progress)
    assert not first.unloaded
    assert holder.current.engine is second
    assert list(rounds)[-1].finish_reason == "eos"
    assert first.unloaded


def test_a_replaced_pair_without_answers_is_unloaded_at_once():
    first = ReplayEngine()
    holder = holder_of(first, ReplayEngine())
    holder.load(replay_preset("a"), no_progress)
    holder.load(replay_preset("b"), no_progress)
    assert first.unloaded


def test_one_load_at_a_time():
    def load(preset, on_progress, cancel):
        with pytest.raises(BusyError, match="a"):
            holder.load(replay_preset("b"), no_progress)
        return ReplayEngine()

    holder = EngineHolder(load)
    holder.load(replay_preset("a"), no_progress)
    assert holder.current.preset.name == "a"


def test_only_who_asked_for_a_load_can_call_it_off_and_the_pair_before_goes_on():
    visitor, other = Visitor(), Visitor()

    def load(preset, on_progress, cancel):
        if preset.name == "b":
            assert not holder.cancel(other)
            assert not cancel.is_set()
            on_progress("Still loading", 0.5)
            assert holder.cancel(visitor)
            assert cancel.is_set()
            raise sd.LoadCancelledError("Loading was cancelled.")
        return ReplayEngine()

    holder = EngineHolder(load)
    holder.load(replay_preset("a"), no_progress, visitor)
    frames = list(load_handlers.load(visitor, holder, replay_presets("a", "b"), "b"))
    assert [frame.own for frame in frames] == [True, True, False]
    assert "Loading b was cancelled" in frames[-1].status
    assert 'data-state="ready"' in frames[-1].status
    assert (holder.current.preset.name, holder.loading) == ("a", None)
    assert not holder.cancel(visitor)


def test_borrowing_nothing_says_what_to_do():
    with pytest.raises(NothingLoadedError, match="Press Load"):
        next(Visitor().ask("Hello", sd.Settings(), EngineHolder()))


def test_the_conversation_goes_on_with_the_pair_that_replaced_the_first_and_says_so():
    first, second = ReplayEngine(), ReplayEngine()
    holder, visitor = holder_of(first, second), Visitor()
    holder.load(replay_preset("a"), no_progress)
    list(visitor.ask("One", sd.Settings(), holder))
    holder.load(replay_preset("b"), no_progress)
    list(visitor.ask("Two", sd.Settings(), holder))
    assert len(second.prompts[0]) == 3
    assert "The pair was replaced" in visitor.conversation.transcript


def test_one_visitors_stop_does_not_touch_another():
    holder = holder_of(ReplayEngine())
    holder.load(replay_preset("a"), no_progress)
    mine, other = Visitor(), Visitor()
    my_rounds, other_rounds = (v.ask("Hi", sd.Settings(), holder) for v in (mine, other))
    next(my_rounds), next(other_rounds)
    mine.stop()
    assert list(my_rounds)[-1].finish_reason == "cancelled"
    assert list(other_rounds)[-1].finish_reason == "eos"


def test_a_visitor_who_leaves_gives_up_the_session_and_ends_the_answer():
    holder, visitors = holder_of(ReplayEngine()), Visitors()
    holder.load(replay_preset("a"), no_progress)
    visitor = visitors.of("hash")
    rounds = visitor.ask("Hi", sd.Settings(), holder)
    next(rounds), next(rounds)
    session = visitor.session
    visitors.leave("hash")
    assert list(rounds)[-1].finish_reason == "cancelled"
    assert session.closed
    assert visitors.of("hash") is not visitor


def test_who_has_not_been_heard_of_for_long_is_forgotten():
    visitors = Visitors()
    old = visitors.of("old")
    old.last_seen -= 2 * IDLE_S
    visitors.of("new")
    assert len(visitors) == 1
    assert visitors.of("old") is not old
