"""Steps in processes of their own: a time limit for each, a budget for all, findings passed on at once.

A step that crashes or hangs costs its own findings only; the most important steps come first. While one runs,
the next is started and waits for a line on its stdin: importing torch and the engine takes 10 s on a fresh
machine, and uses no GPU. Knows nothing of what the steps do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .gpu_findings import Finding, Outcome, finding_json, parse_finding

RESULTS = "results.jsonl"
"""The file with every finding, one a line."""
LOG = "all.log"
"""The file with what the steps printed."""
_SHORTEST_S = 8.0
"""A step is skipped if less is left of the budget and it needs more."""
_CLOSING_S = 2.0
"""Part of the budget that is kept to end the last process and to write."""
_POLL_S = 0.1
_TAIL_CHARS = 2000
_LOG_CHARS = 200_000
"""Most that a step may add to LOG: 20 steps of it fit into the 16 MiB that a lent machine returns a file."""
_SKIPPED = Outcome("skipped", "the budget was used up before it")


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step to run: its name and the most seconds that it may take."""

    name: str
    seconds: float


Command = Callable[[str, Path], Sequence[str]]
"""The command line of a step: its name, and the file that it appends its findings to."""


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Runner of steps, in order, within `budget_s` seconds.

    Findings are appended to RESULTS in the folder `output`, then given to `report`; logs go to LOG.
    `scratch` is an empty folder for the files of the running steps.
    """

    command: Command
    environment: Mapping[str, str]
    budget_s: float
    output: Path
    scratch: Path
    report: Callable[[Finding], object]

    def run(self, steps: Sequence[PlannedStep]) -> list[Finding]:
        """Run the steps. Return all findings, each step's end among them."""
        ends_at = time.monotonic() + self.budget_s - _CLOSING_S
        findings: list[Finding] = []
        ahead: _Process | None = None
        try:
            for step, following in zip(steps, [*steps[1:], None], strict=True):
                process, ahead = ahead or self._start(step), None
                left_s = ends_at - time.monotonic()
                if left_s < min(step.seconds, _SHORTEST_S):
                    process.remove()
                    self._keep(findings, _finding(step, _SKIPPED))
                    continue
                try:
                    if following is not None:
                        ahead = self._start(following)
                    self._follow(process, step, left_s, findings)
                finally:
                    process.remove()
        finally:
            if ahead is not None:
                ahead.remove()
        return findings

    def _start(self, step: PlannedStep) -> _Process:
        folder = self.scratch / step.name
        folder.mkdir()
        return _Process(lambda written: self.command(step.name, written), self.environment, folder)

    def _follow(self, process: _Process, step: PlannedStep, left_s: float, findings: list[Finding]) -> None:
        """Let the waiting process go; pass its findings on until it ends or its time is over."""
        limit_s = min(step.seconds, left_s)
        started = time.monotonic()
        process.go()
        while not process.wait(min(_POLL_S, max(0.0, started + limit_s - time.monotonic()))):
            self._pass_on(process, step, findings)
            if time.monotonic() - started >= limit_s:
                break
        code = process.exit_code
        process.kill()
        self._pass_on(process, step, findings)
        seconds = time.monotonic() - started
        log = process.log
        with (self.output / LOG).open("a", encoding="utf-8") as file:
            ending = "stopped" if code is None else f"exit code {code}"
            file.write(f"\n===== {step.name}: {ending} after {seconds:.1f} s\n{log[-_LOG_CHARS:]}")
        self._keep(findings, _finding(step, _end(code, seconds, limit_s < step.seconds, log)))

    def _pass_on(self, process: _Process, step: PlannedStep, findings: list[Finding]) -> None:
        for line in process.fresh_lines():
            try:
                finding = parse_finding(line)
            except ValueError:
                wrong = Outcome("fail", f"the step wrote a line that is no finding: {line[:200]!r}")
                finding = _finding(step, wrong, "format")
            self._keep(findings, finding)

    def _keep(self, findings: list[Finding], finding: Finding) -> None:
        findings.append(finding)
        with (self.output / RESULTS).open("a", encoding="utf-8") as file:
            file.write(finding_json(finding) + "\n")
        self.report(finding)


class _Process:
    """A process of a step, in a process group of its own, that waits for `go`. All its files are in `folder`,
    temporary ones too, since a process that is killed does not remove them.
    """

    def __init__(
        self, command: Callable[[Path], Sequence[str]], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._folder = folder
        self._written, self._log = folder / "findings.jsonl", folder / "log"
        self._written.touch()
        self._read_bytes = 0
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command(self._written),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "TMPDIR": str(folder)},
                # Not a session of its own: a lent machine ends the processes of a command by session.
                process_group=0,
            )

    def go(self) -> None:
        """Let the process begin. Nothing happens if it has ended already."""
        with contextlib.suppress(OSError):
            os.write(self._stdin, b"go\n")

    def wait(self, seconds: float) -> bool:
        """Wait at most so long. Return True if the process has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the process and the children that it left behind. Nothing happens the second time."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()

    def remove(self) -> None:
        """End the process and delete its files."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """Output of the process so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def fresh_lines(self) -> list[str]:
        """Return the whole lines that were written since the last call."""
        with self._written.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._read_bytes += len(whole) + 1
        return [line for line in whole.decode("utf-8", errors="replace").split("\n") if line.strip()]

    @property
    def _stdin(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()


def _finding(step: PlannedStep, outcome: Outcome, name: str = "end of the step") -> Finding:
    return Finding(step.name, name, outcome.status, outcome.description, outcome.figures)


def _end(code: int | None, seconds: float, cut_short: bool, log: str) -> Outcome:
    """The outcome of a step's process; `code` is None if it was stopped at its limit."""
    figures = {"exit_code": code, "seconds": round(seconds, 1)}
    if code == 0:
        return Outcome("measured", f"after {seconds:.1f} s", figures)
    figures["log_tail"] = log[-_TAIL_CHARS:]
    if code is not None:
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "nothing was printed")
        return Outcome("fail", f"exit code {code} after {seconds:.1f} s: {last[:300]}", figures)
    if cut_short:
        return Outcome("skipped", f"stopped after {seconds:.1f} s, at the end of the budget", figures)
    return Outcome("fail", f"stopped at its limit of {seconds:.1f} s", figures)
