"""Loads beside each other, after each other, and beside answers: nobody is in anybody's way."""

import threading

import specdec_core as sd

HI = [{"role": "user", "content": "Once upon a time"}]


def test_two_loads_at_once_take_turns_and_both_serve(pair_folders):
    target, drafter = pair_folders
    said, engines = [], []

    def load() -> None:
        engines.append(
            sd.Engine.load(
                target=target, drafter=drafter, device="cpu", on_progress=lambda text, _: said.append(text)
            )
        )

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settings = sd.Settings(max_new_tokens=12, seed=1)
    answers = {engine.generate(HI, settings).text for engine in engines}
    assert len(engines) == 3
    assert len(answers) == 1
    assert "Waiting until another pair is loaded" in said


def test_an_answer_goes_on_while_another_pair_is_loaded(engine, pair_folders):
    settings = sd.Settings(max_new_tokens=120, seed=3)
    wanted = engine.generate(HI, settings).token_ids
    target, drafter = pair_folders
    loading = threading.Thread(
        target=lambda: sd.Engine.load(target=target, drafter=drafter, device="cpu").unload()
    )
    loading.start()
    got = []
    while loading.is_alive():
        got.append(engine.generate(HI, settings).token_ids)
    loading.join()
    assert got
    assert all(ids == wanted for ids in got)


def test_loading_the_same_pair_twice_in_a_row_gives_the_same_answers(pair_folders):
    target, drafter = pair_folders
    settings = sd.Settings(max_new_tokens=24, seed=2)
    answers = []
    for _ in range(2):
        loaded = sd.Engine.load(target=target, drafter=drafter, device="cpu")
        answers.append(loaded.generate(HI, settings).token_ids)
        loaded.unload()
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
