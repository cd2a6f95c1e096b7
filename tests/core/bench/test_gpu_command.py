"""The command of the GPU checks: options, output, exit codes, and what is left of a run that is ended."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from specdec_core.bench.gpu_findings import Finding
from specdec_core.bench.gpu_steps import STEPS
from specdec_core.cli import main


def test_it_says_on_stderr_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--gpu-checks", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "CUDA" in printed.err


@pytest.mark.slow
def test_a_rehearsal_prints_one_json_object_and_appends_to_the_folder(capsys, tmp_path):
    arguments = ["--gpu-checks", "--smoke", "--only", "failed_capture", "--output", str(tmp_path)]
    assert main(["bench", *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)["findings"]
    assert found[0]["step"] == "failed_capture"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.log", "results.jsonl"]
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
    assert len(printed.err.splitlines()) == len(found)


@pytest.mark.parametrize(("status", "code"), [("fail", 1), ("pass", 0), ("skipped", 0), ("measured", 0)])
def test_only_a_failure_changes_the_exit_code(status, code, capsys, monkeypatch):
    finding = Finding("environment", "a check", status, "described")

    def run(self, steps):
        self.report(finding)
        return [finding]

    monkeypatch.setattr("specdec_core.bench.gpu_process.StepRunner.run", run)
    assert main(["bench", "--gpu-checks", "--smoke"]) == code
    assert capsys.readouterr().out.splitlines() == [finding.line, f"1 {status}"]


@pytest.mark.parametrize("device", ["cpu", "cuda:3", "tpu"])
def test_another_device_than_a_gpu_of_this_machine_is_refused(device, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["bench", "--gpu-checks", "--device", device]) in (1, 2)
    assert device in capsys.readouterr().err


def test_an_unknown_step_is_refused_with_the_names_of_all(capsys):
    assert main(["bench", "--gpu-checks", "--smoke", "--only", "memory", "memry"]) == 2
    printed = capsys.readouterr().err
    assert "no step memry. " in printed
    assert all(step.name in printed for step in STEPS)


@pytest.mark.parametrize("named", [["--preset", "stories"], ["--target", "a"], ["--shapes", "a", "b"]])
def test_models_beside_the_checks_are_refused(named, capsys):
    assert main(["bench", "--gpu-checks", "--smoke", *named]) == 2
    assert "its own models" in capsys.readouterr().err


def test_a_rehearsal_on_a_gpu_is_refused(capsys):
    assert main(["bench", "--gpu-checks", "--smoke", "--device", "cuda"]) == 2
    assert "--smoke" in capsys.readouterr().err


@pytest.mark.parametrize("taken", ["output", "output/results.jsonl"])
def test_an_output_that_cannot_be_written_is_refused_before_any_step(taken, tmp_path, capsys):
    """There is a file in place of the folder, or a folder in place of the file."""
    if taken == "output":
        (tmp_path / taken).touch()
    else:
        (tmp_path / taken).mkdir(parents=True)
    assert main(["bench", "--gpu-checks", "--smoke", "--output", str(tmp_path / "output")]) == 2
    assert "--output" in capsys.readouterr().err


def test_a_running_step_ends_with_the_process_that_started_it(tmp_path):
    """However that ends: its end of the pipe is closed by the system."""
    findings = tmp_path / "findings.jsonl"
    command = [
        sys.executable,
        "-m",
        "specdec_core.bench.gpu_child",
        "rounds",
        str(findings),
        "cpu",
        "--smoke",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        assert child.stdout is not None
        assert child.stdout.readline(), "the step runs"
        child.stdin.close()
        assert child.wait(30) == 1


def test_termination_in_a_run_removes_its_files(monkeypatch, tmp_path):
    """As by `timeout`, whose SIGTERM would end the process without a word to its steps."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(self, steps):
        assert self.scratch.is_dir()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("specdec_core.bench.gpu_process.StepRunner.run", run)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--gpu-checks", "--smoke"])
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(tmp_path.iterdir())
