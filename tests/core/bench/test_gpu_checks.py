"""The GPU checks on a CPU: what they compare, what they skip, and that a check can fail."""

import json
from functools import partial

import pytest
import torch

from specdec_core.bench import gpu_graphs
from specdec_core.bench.gpu_checks import (
    capture_equals_eager,
    capture_step,
    greedy_equals_baseline,
    waits_a_round,
)
from specdec_core.bench.gpu_child import run_step
from specdec_core.bench.gpu_findings import (
    Finding,
    counts_line,
    finding_json,
    parse_finding,
    verdict,
)
from specdec_core.bench.gpu_graphs import RULES, captured_steps_equal_eager, failing_graph, recomputed
from specdec_core.bench.gpu_run import StepRun
from specdec_core.bench.gpu_shapes import shape_config
from specdec_core.bench.gpu_steps import STEPS
from specdec_core.bench.gpu_timing import graph_ms
from specdec_core.bench.random_models import SMALL, save_random

CPU = torch.device("cpu")


@pytest.fixture
def findings() -> list[Finding]:
    return []


@pytest.fixture
def run(tmp_path, findings) -> StepRun:
    return StepRun("a step", CPU, True, tmp_path, findings.append)


@pytest.fixture
def llama(tmp_path):
    return save_random(tmp_path / "llama", "llama", SMALL, CPU)


# --- findings -----------------------------------------------------------------------------------------


def test_a_finding_survives_its_line_of_json():
    finding = Finding("a", "b", "measured", "µs", {"us": {"1": [1.5, None]}})
    assert parse_finding(finding_json(finding)) == finding


def test_a_figure_that_is_not_finite_is_null():
    assert json.loads(finding_json(Finding("a", "b", "pass", "", {"x": float("nan")})))["figures"] == {
        "x": None
    }


@pytest.mark.parametrize("line", ["", "{", "[]", "1", "null", '{"step": "a"}', '{"other": 1}'])
def test_any_other_line_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011 # json's own errors among them
        parse_finding(line)


def test_the_line_for_people_is_one_line():
    line = Finding("a step", "a check", "fail", "first\n  second").line
    assert line == "fail      a step: a check: first second"


def test_counts_come_by_status():
    findings = [Finding("a", "b", status, "") for status in ("measured", "pass", "fail", "pass")]
    assert counts_line(findings) == "2 pass, 1 fail, 1 measured"


# --- one run of a step --------------------------------------------------------------------------------


def test_an_exception_in_a_check_is_a_failure_with_its_traceback(run, findings):
    run.attempt("a check", lambda: 1 / 0)
    run.attempt("the next", lambda: verdict(True, "good", {"n": 1}))
    assert [finding.status for finding in findings] == ["fail", "pass"]
    assert findings[0].description == "ZeroDivisionError: division by zero"
    assert "lambda" in findings[0].figures["traceback"]
    assert findings[1].figures["n"] == 1
    assert findings[1].figures["seconds"] >= 0


def test_an_error_that_sticks_to_the_device_ends_no_step(run, findings, monkeypatch):
    def sticks() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", sticks)
    run.attempt("a check", sticks)
    run.attempt("the next", sticks)
    assert [finding.status for finding in findings] == ["fail", "fail"]


def test_a_quantization_that_cannot_be_loaded_is_skipped_with_the_reason(run, findings):
    run.attempt("a check", lambda: verdict(True, ""), "nf4")
    assert (findings[0].status, findings[0].description) == ("skipped", "nf4 needs a CUDA device")


def test_without_bitsandbytes_quantized_checks_are_skipped(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    on_gpu = StepRun("a step", torch.device("cuda"), False, run.folder, run.report)
    assert on_gpu.obstacle("int8") == "bitsandbytes is not installed"
    assert on_gpu.obstacle("none") is None


# --- checks -------------------------------------------------------------------------------------------


def test_what_the_checks_compare_holds_on_the_cpu_too(run, llama):
    for check in (capture_equals_eager, greedy_equals_baseline):
        outcome = check(run, llama, "none")
        assert outcome.status == "pass", outcome.description


def test_a_graph_that_computes_something_else_fails_the_comparison(run, llama, monkeypatch):
    def twice(function):
        result = function()
        return lambda: result.copy_(2 * function() if result.is_floating_point() else function()), result

    runner = gpu_graphs.graph_runner

    def wrong(model):
        made = runner(model)
        made.forget_graphs(twice)
        return made

    monkeypatch.setattr("specdec_core.bench.gpu_checks.graph_runner", wrong)
    assert capture_equals_eager(run, llama, "none").status == "fail"


def test_captured_rounds_that_differ_fail(run, llama, monkeypatch):
    model = partial(run.load, llama, "none")
    assert captured_steps_equal_eager(model, RULES["rejection"]).status == "pass"

    def drifting(function):
        """The eighth replay of each graph is off; fewer are looked at while a runner is made."""
        replay, result = recomputed(function)
        calls = iter(range(10**6))
        return lambda: (replay(), result.mul_(0.9 if next(calls) == 7 and result.numel() > 1 else 1)), result

    monkeypatch.setattr(gpu_graphs, "recomputed", drifting)
    assert captured_steps_equal_eager(model, RULES["rejection"]).status == "fail"


def test_a_failing_graph_that_no_one_notices_fails(run, llama, monkeypatch):
    model = partial(run.load, llama, "none")
    assert failing_graph(model, RULES["greedy"]).status == "pass"
    monkeypatch.setattr(gpu_graphs, "_failing_capture", lambda device, failing: recomputed)
    assert failing_graph(model, RULES["greedy"]).status == "fail"


def test_waits_are_not_counted_on_a_cpu(run, llama):
    outcome = waits_a_round(run, llama, "none", RULES["greedy"])
    assert outcome.status == "skipped"
    assert "rounds" in outcome.description


def test_every_family_is_compared(run, findings):
    capture_step("none", run)
    assert [finding.status for finding in findings] == ["pass"] * 5
    assert [finding.name for finding in findings][:2] == [
        "capture equals eager: llama, bf16", "capture equals eager: gemma, bf16",
    ]  # fmt: skip


def test_a_time_on_a_cpu_is_positive():
    assert graph_ms(CPU, lambda: torch.ones(100).sum()) > 0


def test_the_shapes_are_the_models_own():
    """Parameters in millions: those of the model cards."""
    for shape, wanted in {"llama_1b": 1236, "llama_3b": 3213, "gemma_2b": 2506, "gemma_7b": 8538}.items():
        config = shape_config(shape, smoke=False)
        hidden, heads, keys = (
            config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
        )
        attention = 2 * hidden * config["head_dim"] * (heads + keys)
        layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
        total = config["vocab_size"] * hidden + config["num_hidden_layers"] * layer + hidden
        assert round(total / 1e6) == wanted


# --- all steps ----------------------------------------------------------------------------------------


def test_names_of_steps_differ_and_limits_are_between_ten_seconds_and_three_minutes():
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all(10 <= step.seconds <= 180 for step in STEPS)


_ALIKE = {"llama_3b_bf16", "gemma_7b_nf4", "llama_3b_nf4", "llama_3b_int8", "lanes_int8"}
"""Steps that differ from another one in sizes alone, which a rehearsal has none of."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [step for step in STEPS if step.name not in _ALIKE], ids=lambda step: step.name
)
def test_every_step_can_be_rehearsed(step, tmp_path, findings):
    run_step(StepRun(step.name, CPU, True, tmp_path, findings.append))
    assert findings
    assert {finding.step for finding in findings} == {step.name}
    for finding in findings:
        assert finding.status != "fail", finding
        assert parse_finding(finding_json(finding)).name == finding.name
        assert finding.description
