"""A lane of llama.cpp, with a stand-in for the package, and with the real one where it is installed."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from specdec_core.cli import main
from tests.support.bench_runs import QUICK, bench_json


class _Server:
    """Answers every request with all the tokens that it asks for, after a prefill."""

    params: SimpleNamespace
    requests: list[dict]
    answer: dict

    def __init__(self, params) -> None:
        if "broken" in params.model.path:
            raise RuntimeError("failed to load model")
        _Server.params = params
        _Server.requests = []

    def handle_completions(self, request):
        _Server.requests.append(request)
        return _Server.answer | {"timings": {"predicted_n": request["n_predict"], "predicted_ms": 20.0}}


@pytest.fixture
def gguf(tmp_path, monkeypatch) -> str:
    """A file, and a package that loads it."""

    def params() -> SimpleNamespace:
        return SimpleNamespace(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )

    package = ModuleType("xllamacpp")
    package.CommonParams, package.Server = params, _Server
    _Server.answer = {}
    monkeypatch.setitem(sys.modules, "xllamacpp", package)
    path = tmp_path / "target.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


def test_llama_cpp_is_measured_beside_ours_on_the_same_prompts(pair, capsys, gguf):
    report = bench_json(capsys, *pair, *QUICK, "--gamma", "2", "--no-ngram", "--llama-cpp", gguf)
    lanes = report["tables"][0]["lanes"]
    assert [lane["lane"] for lane in lanes] == ["baseline", "speculative, gamma 2", "llama.cpp"]
    peer = lanes[-1]
    assert peer["decode_rate"] == pytest.approx(_Server.requests[0]["n_predict"] / 0.02)
    assert peer["vs_llama_cpp"]["median"] == 1
    ours = lanes[0]
    assert ours["vs_llama_cpp"]["median"] == pytest.approx(ours["decode_rate"] / peer["decode_rate"], rel=0.5)
    assert peer["vs_baseline"] is peer["drafts"] is None
    assert _Server.params.model.path == gguf
    assert _Server.params.cpuparams.n_threads == 1
    assert all(isinstance(token_id, int) for token_id in _Server.requests[0]["prompt"])
    assert not any(request["cache_prompt"] for request in _Server.requests)


def test_what_it_says_instead_of_an_answer_is_the_error(pair, capsys, gguf, monkeypatch):
    monkeypatch.setattr(_Server, "handle_completions", lambda *_: {"error": {"message": "no such token"}})
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
