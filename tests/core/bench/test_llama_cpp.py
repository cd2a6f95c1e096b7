"""A lane of llama.cpp, with a stand-in for the package, and with the real one where it is installed."""

import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

from specdec_core.bench.figures import table
from specdec_core.bench.lanes import Lane, Sample
from specdec_core.cli import main
from specdec_core.loading.step_times import StepTimes
from specdec_core.metrics import summarize
from tests.support.bench_runs import QUICK, bench_json


@pytest.fixture
def gguf(tmp_path, llama_cpp) -> str:
    """A file, and a package that loads it."""
    path = tmp_path / "target.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


def test_llama_cpp_is_measured_beside_ours_on_the_same_prompts(pair, capsys, gguf, llama_cpp):
    report = bench_json(capsys, *pair, *QUICK, "--gamma", "2", "--no-ngram", "--llama-cpp", gguf)
    lanes = report["tables"][0]["lanes"]
    assert [lane["lane"] for lane in lanes] == ["baseline", "speculative, gamma 2", "llama.cpp"]
    peer = lanes[-1]
    # The first token is the prefill's: its time starts with it.
    assert peer["decode_rate"] == pytest.approx((llama_cpp.requests[0]["n_predict"] - 1) / 0.02)
    assert peer["vs_llama_cpp"]["median"] == 1
    assert lanes[0]["vs_llama_cpp"]["pairs"] == 2
    assert peer["vs_baseline"] is peer["drafts"] is None
    assert llama_cpp.params.model.path == gguf
    assert llama_cpp.params.cpuparams.n_threads == 1
    assert all(isinstance(token_id, int) for token_id in llama_cpp.requests[0]["prompt"])
    assert not any(request["cache_prompt"] for request in llama_cpp.requests)


def test_lanes_are_divided_by_what_llama_cpp_decodes_in_a_second():
    lanes = [Lane("baseline", lambda *_: None), Lane("llama.cpp", lambda *_: None, drafting=None)]
    stats = summarize([], time_to_first_token_s=0.0, prompt_tokens=5)
    lanes[0].samples = [Sample(9, 1.0, replace(stats, tokens_per_second=rate)) for rate in (30.0, 40.0, 90.0)]
    lanes[1].samples = [Sample(9, 5.0, decoded=(20, 1.0)) for _ in range(3)]
    ours, peer = table(0.0, 10, lanes, StepTimes([], {1: 0.1})).lanes
    assert ours.vs_llama_cpp.median == 2.0
    assert (peer.decode_rate, peer.vs_llama_cpp.median) == (20, 1.0)


def test_an_answer_of_one_token_has_no_rate():
    assert Sample(1, 1.0).decode_rate is None


@pytest.mark.parametrize("other", [["--exactness", "2"], ["--history", "8"], ["--formats", "text"]])
def test_measurements_without_lanes_refuse_it(pair, capsys, gguf, other):
    assert main(["bench", *pair, *QUICK, "--llama-cpp", gguf, *other]) == 2
    assert "--llama-cpp is a lane" in capsys.readouterr().err


def test_what_it_says_instead_of_an_answer_is_the_error(pair, capsys, gguf, llama_cpp, monkeypatch):
    monkeypatch.setattr(llama_cpp, "handle_completions", lambda *_: {"error": {"message": "no such token"}})
    assert main(["bench", *pair, *QUICK, "--llama-cpp", gguf]) == 2
    assert "no such token" in capsys.readouterr().err


def test_a_file_that_cannot_be_loaded_is_named(pair, capsys, gguf, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert main(["bench", *pair, *QUICK, "--llama-cpp", str(broken)]) == 2
    assert "failed to load model" in capsys.readouterr().err


def test_without_the_package_the_command_that_installs_it_is_named(pair, capsys, gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert main(["bench", *pair, *QUICK, "--llama-cpp", gguf]) == 2
    assert "pip install xllamacpp" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
def test_a_file_that_is_no_model_is_refused_by_llama_cpp_itself(pair, capsys, tmp_path):
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF")
    assert main(["bench", *pair, *QUICK, "--llama-cpp", str(path)]) == 2
    assert "cannot load" in capsys.readouterr().err
