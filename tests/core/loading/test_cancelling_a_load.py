"""Cancellation of loads: the load ends at once, leaves nothing in memory, and can be repeated."""

import gc
import threading

import pytest
from transformers import PreTrainedModel

import specdec_core as sd

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "Once upon a time"}]


class CallerError(Exception):
    """An error of a caller's own progress function."""


def models_in_memory() -> int:
    gc.collect()
    return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())


@pytest.fixture
def load(pair_folders):
    target, drafter = pair_folders
    return lambda **options: sd.Engine.load(target=target, drafter=drafter, device="cpu", **options)


@pytest.mark.parametrize(
    "words",
    ["Checking", "Comparing", "Looking", "Loading the target", "Loading the drafter", "Warming", "Ready"],
)
def test_a_load_can_be_cancelled_at_every_step_and_leaves_nothing(load, words):
    cancel, messages = threading.Event(), []

    def on_progress(message: str, share: float | None) -> None:
        messages.append(message)
        if message.startswith(words):
            cancel.set()

    before = models_in_memory()
    with pytest.raises(sd.LoadCancelledError, match="Loading was cancelled"):
        load(on_progress=on_progress, cancel=cancel)
    assert messages[-1].startswith(words)
    assert models_in_memory() == before


@pytest.mark.parametrize("words", ["Checking", "Loading the drafter", "Warming", "Ready"])
def test_an_error_of_a_progress_function_ends_the_load_and_is_raised_unchanged(load, words):
    def on_progress(message: str, share: float | None) -> None:
        if message.startswith(words):
            raise CallerError(message)

    before = models_in_memory()
    with pytest.raises(CallerError, match=words):
        load(on_progress=on_progress)
    assert models_in_memory() == before
    load().unload()


def test_a_load_cancelled_beforehand_reads_nothing(load):
    cancel = threading.Event()
    cancel.set()
    messages = []
    with pytest.raises(sd.LoadCancelledError):
        load(on_progress=lambda message, share: messages.append(message), cancel=cancel)
    assert messages == []


def test_a_load_that_waits_for_another_can_be_cancelled(load):
    first_loads, go_on, cancel = threading.Event(), threading.Event(), threading.Event()

    def hold(message: str, share: float | None) -> None:
        first_loads.set()
        assert go_on.wait(60)

    first = threading.Thread(target=lambda: load(on_progress=hold).unload())
    first.start()
    assert first_loads.wait(60)
    messages = []

    def wait(message: str, share: float | None) -> None:
        messages.append(message)
        cancel.set()

    try:
        with pytest.raises(sd.LoadCancelledError):
            load(on_progress=wait, cancel=cancel)
    finally:
        go_on.set()
        first.join(60)
    assert messages == ["Waiting until another pair is loaded"]
    assert not first.is_alive()


def test_a_cancelled_load_leaves_the_pair_before_it_serving(load, engine):
    settings = sd.Settings(max_new_tokens=8, seed=1)
    expected = engine.generate(HI, settings).token_ids
    cancel = threading.Event()
    with pytest.raises(sd.LoadCancelledError):
        load(on_progress=lambda message, share: cancel.set(), cancel=cancel)
    assert engine.generate(HI, settings).token_ids == expected
