"""Steps in processes of their own: order, limits, budget, crashes, and what is kept of each."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from specdec_core.bench import gpu_process
from specdec_core.bench.gpu_findings import Finding
from specdec_core.bench.gpu_process import LOG, RESULTS, PlannedStep, StepRunner

WAIT = "import json, os, subprocess, sys, time; sys.stdin.readline()\n"
SAY = "print(json.dumps({'step': STEP, 'name': NAME, 'status': 'pass', 'description': 'good', 'figures': {'n': 1}}), file=open(FILE, 'a'))\n"  # noqa: E501


def say(name: str) -> str:
    return SAY.replace("NAME", repr(name))


@pytest.fixture
def run(tmp_path):
    """Run steps, given by name as Python code, and return the findings. `FILE` and `STEP` are set in it."""

    def run(codes: dict[str, str], seconds: float = 30, budget_s: float = 60) -> list[Finding]:
        def command(step: str, findings: Path) -> list[str]:
            names = f"FILE, STEP = {str(findings)!r}, {step!r}\n"
            return [sys.executable, "-S", "-c", WAIT + names + codes[step]]

        output, scratch = tmp_path / "output", tmp_path / "scratch"
        output.mkdir(exist_ok=True)
        scratch.mkdir()
        reported: list[Finding] = []
        runner = StepRunner(command, os.environ, budget_s, output, scratch, reported.append)
        findings = runner.run([PlannedStep(name, seconds) for name in codes])
        assert reported == findings
        assert not list(scratch.iterdir())
        return findings

    return run


def _ends(findings: list[Finding]) -> dict[str, str]:
    return {finding.step: finding.status for finding in findings if finding.name == "end of the step"}


def _is_running(pid: int) -> bool:
    """False for a zombie too, which waits for its parent only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _has_ended(pid: int) -> bool:
    """Wait for the end of a process that was sent a signal."""
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return not _is_running(pid)


def test_findings_come_in_the_order_of_the_steps(run):
    findings = run({"b": say("one") + say("two"), "a": say("three")})
    assert [(finding.step, finding.name) for finding in findings] == [
        ("b", "one"), ("b", "two"), ("b", "end of the step"), ("a", "three"), ("a", "end of the step"),
    ]  # fmt: skip
    assert _ends(findings) == {"b": "measured", "a": "measured"}
    assert findings[0] == Finding("b", "one", "pass", "good", {"n": 1})


def test_results_are_valid_json_lines_and_the_log_has_what_was_printed(run, tmp_path):
    findings = run({"a": say("one") + "print('hello from a')", "b": "raise SystemExit('bad luck')"})
    lines = (tmp_path / "output" / RESULTS).read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [finding.name for finding in findings]
    log = (tmp_path / "output" / LOG).read_text()
    assert log.index("===== a: exit code 0") < log.index("hello from a") < log.index("===== b: exit code 1")


def test_a_step_that_crashes_fails_with_the_end_of_its_log_and_the_next_one_runs(run):
    findings = run({"a": say("one") + "1 / 0", "b": say("two")})
    assert [finding.name for finding in findings if finding.status == "pass"] == ["one", "two"]
    assert _ends(findings) == {"a": "fail", "b": "measured"}
    end = next(finding for finding in findings if finding.status == "fail")
    assert "ZeroDivisionError" in end.description
    assert end.figures["exit_code"] == 1
    assert "Traceback" in end.figures["log_tail"]


def test_a_step_killed_by_a_signal_fails(run):
    findings = run({"a": "os.kill(os.getpid(), 9)"})
    assert _ends(findings) == {"a": "fail"}
    assert findings[-1].figures["exit_code"] == -9


def test_what_a_step_found_before_its_limit_counts(run):
    findings = run({"a": say("one") + "time.sleep(60)", "b": say("two")}, seconds=0.6)
    assert [finding.name for finding in findings if finding.status == "pass"] == ["one", "two"]
    assert _ends(findings) == {"a": "fail", "b": "measured"}
    assert "its limit" in next(finding for finding in findings if finding.status == "fail").description


def test_a_line_that_is_no_finding_is_a_failure_and_does_not_end_the_step(run):
    garbage = "print('{garbage', file=open(FILE, 'a'))\nprint('[1]', file=open(FILE, 'a'))\n"
    wrong_status = "print(json.dumps({'step': 'a', 'name': 'x', 'status': 'great', 'description': ''}), file=open(FILE, 'a'))\n"  # noqa: E501
    findings = run({"a": garbage + wrong_status + say("one")})
    assert [finding.status for finding in findings] == ["fail", "fail", "fail", "pass", "measured"]


def test_garbage_on_the_standard_streams_is_no_finding(run):
    findings = run({"a": "print('{\"step\": 1}')\nos.write(2, b'\\xff\\xfe')\n" + say("one")})
    assert [finding.status for finding in findings] == ["pass", "measured"]


def test_half_a_line_at_the_end_is_left_out(run):
    findings = run({"a": say("one") + "open(FILE, 'a').write('{\"step\": ')"})
    assert [finding.status for finding in findings] == ["pass", "measured"]


@pytest.mark.parametrize("last", ["", "time.sleep(60)"], ids=["after its end", "after its limit"])
def test_children_that_a_step_leaves_are_ended_with_it(run, tmp_path, last):
    path = tmp_path / "child"
    start = f"child = subprocess.Popen(['sleep', '60'])\nopen({str(path)!r}, 'w').write(str(child.pid))\n"
    run({"a": start + last}, seconds=1)
    assert _has_ended(int(path.read_text()))


def test_steps_after_the_budget_are_skipped_by_name(run):
    findings = run({"a": "time.sleep(60)", "b": say("one"), "c": say("two")}, seconds=5, budget_s=3)
    assert [(finding.step, finding.status) for finding in findings] == [
        ("a", "skipped"), ("b", "skipped"), ("c", "skipped"),
    ]  # fmt: skip
    assert all("budget" in finding.description for finding in findings)


def test_a_step_that_the_budget_cuts_short_has_not_failed(run, monkeypatch):
    monkeypatch.setattr(gpu_process, "_SHORTEST_S", 0.1)
    findings = run({"a": say("one") + "time.sleep(60)"}, seconds=20, budget_s=3)
    assert [finding.status for finding in findings] == ["pass", "skipped"]
    assert "end of the budget" in findings[-1].description


def test_a_step_waits_for_its_turn(run, tmp_path):
    """The second is started beside the first, and says so only when the first has ended."""
    path = tmp_path / "order"
    code = f"open({str(path)!r}, 'a').write(STEP + '<'); time.sleep(0.3); open({str(path)!r}, 'a').write('>')"
    run(dict.fromkeys("abc", code))
    assert path.read_text() == "a<>b<>c<>"


def test_a_waiting_step_ends_with_its_starter(run, tmp_path):
    """Here by an error of the report, with the second step waiting."""
    started: list[int] = []

    def command(step: str, findings: Path) -> list[str]:
        code = f"open({str(tmp_path / step)!r}, 'w').write(str(os.getpid()))\n"
        return [sys.executable, "-S", "-c", "import os\n" + code + WAIT]

    def report(finding: Finding) -> None:
        raise RuntimeError("the reader has gone")

    (tmp_path / "output").mkdir()
    (tmp_path / "scratch").mkdir()
    runner = StepRunner(command, os.environ, 60, tmp_path / "output", tmp_path / "scratch", report)
    with pytest.raises(RuntimeError, match="reader"):
        runner.run([PlannedStep("a", 30), PlannedStep("b", 30)])
    started = [int((tmp_path / step).read_text()) for step in "ab" if (tmp_path / step).exists()]
    assert started
    assert all(map(_has_ended, started))
