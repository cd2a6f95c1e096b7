"""llama.cpp as a peer of an engine: its stream as rounds, its ends, and what it cannot do."""

import shutil
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core import llama_cpp as llama_cpp_module
from specdec_core.llama_cpp import LlamaCpp, stop_server
from tests.support.llama_cpp_standin import events_of

STORIES = Path(__file__).parents[2] / "presets" / "stories" / "target"
SETTINGS = sd.Settings(gamma=0, temperature=0.0, max_new_tokens=24, seed=1)
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> sd.Engine:
    """The stories' target with a GGUF file in its folder."""
    folder = tmp_path_factory.mktemp("target")
    shutil.copytree(STORIES, folder, dirs_exist_ok=True)
    (folder / "model.gguf").write_bytes(b"GGUF")
    return sd.Engine.load(target=str(folder), device="cpu")


@pytest.fixture
def engine(target, llama_cpp) -> Iterator[sd.Engine]:
    yield target
    stop_server(target.pair.gguf)


def _stream(engine: sd.Engine, **changed) -> list[sd.Round]:
    return list(engine.peer_stream(PROMPT, replace(SETTINGS, **changed), peer="llama_cpp"))


def test_its_tokens_are_rounds_of_plain_tokens(engine, llama_cpp):
    ids = engine.generate(PROMPT, SETTINGS).token_ids
    llama_cpp.events = events_of(ids, "limit")
    rounds = _stream(engine)
    assert sd.emitted_ids(rounds) == ids
    assert "".join(rnd.text for rnd in rounds) == engine.pair.tokenizer.decode(ids)
    assert {(token.kind, rnd.gamma_reason) for rnd in rounds for token in rnd.tokens} == {
        ("plain", "llama.cpp")
    }
    assert [rnd.position for rnd in rounds] == [*range(len(ids)), len(ids)]
    stats = rounds[-1].stats
    assert (rounds[-1].finish_reason, stats.new_tokens) == ("length", len(ids))
    assert stats.tokens_per_second > 0
    assert stats.acceptance_rate is None
    assert llama_cpp.params.model.path == engine.pair.gguf
    assert llama_cpp.params.cpuparams.n_threads == engine.pair.target.threads


def test_it_gets_the_ids_of_our_prompt_and_our_settings(engine, llama_cpp):
    llama_cpp.events = events_of([5])
    _stream(engine, temperature=0.7, top_k=9, top_p=0.8, min_p=0.1, seed=3)
    _stream(engine)
    drawn, greedy = llama_cpp.requests
    assert drawn["prompt"] == greedy["prompt"] == engine.pair.prompter.encode(PROMPT)
    assert (drawn["temperature"], drawn["top_k"], drawn["top_p"], drawn["min_p"]) == (0.7, 9, 0.8, 0.1)
    assert (drawn["seed"], drawn["n_predict"], drawn["cache_prompt"]) == (3, 24, False)
    assert drawn["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p", "typ_p"]
    assert (greedy["top_k"], greedy["samplers"]) == (1, ["penalties", "top_k"])


def test_an_end_of_its_own_is_the_eos(engine, llama_cpp):
    eos = min(engine.pair.eos_ids)
    for ids in ([5, 6, eos], [5, 6]):  # with a token of the pair's, or with one that it does not know
        llama_cpp.events = events_of(ids, "eos")
        rounds = _stream(engine)
        assert rounds[-1].finish_reason == "eos"
        assert sd.emitted_ids(rounds) == ids
        assert "".join(rnd.text for rnd in rounds) == engine.pair.tokenizer.decode([5, 6])


def test_tokens_of_one_character_come_with_its_text(engine, llama_cpp):
    """llama.cpp sends no event for a token that ends within a character."""
    encode = engine.pair.tokenizer.encode
    ids = encode("🎉", add_special_tokens=False)
    assert len(ids) > 1
    llama_cpp.events = [
        {"tokens": [5], "content": "x", "tokens_predicted": 1, "stop": False},
        {"tokens": ids[-1:], "content": "🎉", "tokens_predicted": 1 + len(ids), "stop": False},
        {"tokens": [6], "content": "y", "tokens_predicted": 2 + len(ids), "stop": False},
        {"tokens": [], "stop": True, "stop_type": "limit", "tokens_predicted": 2 + len(ids)},
    ]
    rounds = _stream(engine)
    assert sd.emitted_ids(rounds) == [5, *ids, 6]
    assert "🎉" in "".join(rnd.text for rnd in rounds)
    assert rounds[-1].stats.new_tokens == 2 + len(ids)


def test_a_stop_string_ends_it(engine, llama_cpp):
    ids = engine.pair.prompter.encode(" The little dog ran away.")
    llama_cpp.events = events_of(ids)
    rounds = _stream(engine, stop=("dog",))
    assert rounds[-1].finish_reason == "stop"
    assert "dog" not in "".join(rnd.text for rnd in rounds)


@pytest.mark.parametrize("way", ["cancelled", "cancelled in the prompt", "closed"])
def test_an_answer_that_nobody_waits_for_is_ended(engine, llama_cpp, way):
    in_prompt = way == "cancelled in the prompt"
    llama_cpp.events = [] if in_prompt else events_of([5, 6, 7])[:-1]
    llama_cpp.released.clear()
    cancel = threading.Event()
    rounds = engine.peer_stream(PROMPT, SETTINGS, peer="llama_cpp", cancel=cancel)
    if in_prompt:
        threading.Timer(0.3, cancel.set).start()
        assert next(rounds).finish_reason == "cancelled"
    else:
        next(rounds)
    if way == "cancelled":
        cancel.set()
        assert list(rounds)[-1].finish_reason == "cancelled"
    rounds.close()
    assert llama_cpp.gone.wait(5), "the connection is closed"
    assert engine.admission.active == 0
    assert engine.generate(PROMPT, SETTINGS).finish_reason


@pytest.mark.parametrize("how", ["an error", "no such path", "half of it"])
def test_what_it_says_instead_of_an_answer_is_the_error(engine, llama_cpp, how):
    if how == "an error":
        llama_cpp.events = [{"error": {"message": "out of slots"}}]
    if how == "no such path":
        llama_cpp.status, llama_cpp.events = 404, [{"error": "not here"}]
    if how == "half of it":
        llama_cpp.events = events_of([5, 6])[:-1]
    with pytest.raises(
        sd.SpecDecError, match=r"llama\.cpp does not answer.*(out of slots|not here|ended early)"
    ):
        _stream(engine)
    assert engine.admission.active == 0


def test_a_server_that_is_gone_is_an_error(engine, llama_cpp):
    llama_cpp.events = events_of([5])
    _stream(engine)
    llama_cpp_module._running._server.listening_address = "http://127.0.0.1:9"
    with pytest.raises(sd.SpecDecError, match=r"llama\.cpp does not answer"):
        _stream(engine)


def test_a_prompt_longer_than_its_context_is_explained(engine, llama_cpp):
    with pytest.raises(sd.PromptError, match="context holds"):
        list(engine.peer_stream("Once upon a time " * 2000, SETTINGS, peer="llama_cpp"))


@pytest.mark.parametrize("files", [[], ["a.gguf", "b.gguf"]])
def test_a_folder_without_one_gguf_file_has_no_such_lane(engine, tmp_path, files, llama_cpp):
    shutil.copytree(STORIES, tmp_path, dirs_exist_ok=True)
    for name in files:
        (tmp_path / name).write_bytes(b"GGUF")
    other = sd.Engine.load(target=str(tmp_path), device="cpu")
    with pytest.raises(sd.SettingsError, match="GGUF file"):
        _stream(other)
    assert other.generate(PROMPT, SETTINGS).finish_reason


def test_a_process_has_one_server_which_ends_with_its_pair(tmp_path, engine, llama_cpp):
    shutil.copytree(STORIES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    other = sd.Engine.load(target=str(tmp_path), device="cpu")
    llama_cpp.events = events_of([5])
    servers = []
    for each in (engine, engine, other, engine, other):
        _stream(each)
        servers.append(weakref.ref(llama_cpp_module._running))
    assert servers[0] is servers[1]
    assert [server() is not None for server in servers] == [False] * 4 + [True]
    other.unload()
    assert servers[-1]() is None


def test_a_file_that_it_cannot_load_is_named(engine, llama_cpp, monkeypatch):
    def refused(_: object) -> None:
        raise RuntimeError("unknown architecture")

    monkeypatch.setattr(sys.modules["xllamacpp"], "Server", refused)
    with pytest.raises(sd.SettingsError, match=r"cannot load .*model\.gguf: .*unknown architecture"):
        _stream(engine)


def test_without_the_package_there_is_no_lane(engine, monkeypatch):
    assert sd.available_peers() == ("generate", "assisted", "llama_cpp")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(sd.SettingsError, match="pip install xllamacpp"):
        LlamaCpp("a.gguf", engine.pair)
