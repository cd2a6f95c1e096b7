"""Loads at the same time, one after another, and beside answers."""

import threading

import pytest

import specdec_core as sd

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "Once upon a time"}]
TIMEOUT_S = 60


def test_loads_at_once_take_turns_and_all_serve(pair_folders):
    """The first load goes on only when both others wait for it."""
    target, drafter = pair_folders
    first_loads, other_waits = threading.Event(), threading.Semaphore(0)
    waits, engines = [], []

    def hold(message: str, share: float | None) -> None:
        if not first_loads.is_set():
            first_loads.set()
            waits.extend(other_waits.acquire(timeout=TIMEOUT_S) for _ in range(2))

    def announce(message: str, share: float | None) -> None:
        if message == "Waiting until another pair is loaded":
            other_waits.release()

    def load(on_progress: sd.Progress) -> None:
        engines.append(sd.Engine.load(target=target, drafter=drafter, device="cpu", on_progress=on_progress))

    first, *others = [threading.Thread(target=load, args=[report]) for report in (hold, announce, announce)]
    first.start()
    assert first_loads.wait(TIMEOUT_S)
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(TIMEOUT_S)
    assert waits == [True, True]
    assert len(engines) == 3
    settings = sd.Settings(max_new_tokens=12, seed=1)
    assert len({engine.generate(HI, settings).text for engine in engines}) == 1


def test_an_answer_goes_on_while_another_pair_is_loaded(engine, pair_folders):
    settings = sd.Settings(max_new_tokens=120, seed=3)
    expected = engine.generate(HI, settings).token_ids
    target, drafter = pair_folders
    loads, go_on = threading.Event(), threading.Event()

    def hold(message: str, share: float | None) -> None:
        loads.set()
        go_on.wait(TIMEOUT_S)

    def load() -> None:
        sd.Engine.load(target=target, drafter=drafter, device="cpu", on_progress=hold).unload()

    loading = threading.Thread(target=load)
    loading.start()
    assert loads.wait(TIMEOUT_S)
    answers = [engine.generate(HI, settings).token_ids]
    go_on.set()
    while loading.is_alive():
        answers.append(engine.generate(HI, settings).token_ids)
    assert all(ids == expected for ids in answers)


def test_loading_the_same_pair_twice_in_a_row_gives_the_same_answers(pair_folders):
    target, drafter = pair_folders
    settings = sd.Settings(max_new_tokens=24, seed=2)
    answers = []
    for _ in range(2):
        engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
        answers.append(engine.generate(HI, settings).token_ids)
        engine.unload()
    assert answers[0] == answers[1]


def test_a_preset_is_loaded_twice_in_a_row():
    settings = sd.Settings(max_new_tokens=12, seed=2)
    first = sd.Engine.load("stories", device="cpu")
    second = sd.Engine.load("stories", device="cpu")
    answers = [engine.generate(HI, settings).token_ids for engine in (first, second)]
    first.unload()
    assert second.generate(HI, settings).token_ids == answers[0] == answers[1]
    second.unload()


def test_progress_never_goes_back_and_ends_at_one(pair_folders):
    target, drafter = pair_folders
    shares = []
    sd.Engine.load(
        target=target, drafter=drafter, device="cpu", on_progress=lambda _, share: shares.append(share)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
