"""Recovery: attempts in their order, and a second process after a failure or a hang."""

import sys
import time

import pytest

from training.smollm2.recovery import ContextLostError, first_success, watch
from training.smollm2.run_log import RunLog


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path, time.time())


def _fail(message: str):
    raise RuntimeError(message)


def test_the_first_attempt_that_succeeds_counts_and_failures_are_logged(log, tmp_path):
    freed = []
    attempts = [lambda: _fail("out of memory"), lambda: 2, lambda: 3]
    assert first_success(log, "phase", attempts, lambda: freed.append(1)) == 2
    assert freed == [1]
    assert "attempt 1 failed" in (tmp_path / "log.jsonl").read_text()


def test_no_success_is_none(log):
    assert first_success(log, "phase", [lambda: _fail("no")], lambda: None) is None


def test_a_lost_cuda_context_ends_the_attempts(log):
    with pytest.raises(ContextLostError):
        first_success(log, "phase", [lambda: _fail("CUDA error: launch failure"), lambda: 2], lambda: None)


def _command(tmp_path, code: str) -> list[str]:
    """A process that runs `code` with `safe` and notes that it ran."""
    note = f"open({str(tmp_path / 'runs')!r}, 'a').write('run ')"
    return [sys.executable, "-c", f"import sys, time; safe = '--safe' in sys.argv; {note}; {code}"]


@pytest.mark.parametrize(
    ("code", "seconds_left", "status", "runs"),
    [
        ("sys.exit(0)", 100, 0, 1),
        ("sys.exit(0 if safe else 3)", 100, 0, 2),
        ("sys.exit(3)", 100, 3, 2),
        ("sys.exit(3)", 30, 3, 1),
        ("time.sleep(60)", -9, -9, 1),
    ],
)
def test_a_failed_process_is_followed_by_a_safe_one_while_there_is_time(
    tmp_path, code, seconds_left, status, runs
):
    assert watch(_command(tmp_path, code), time.time() + seconds_left) == status
    assert (tmp_path / "runs").read_text().split() == ["run"] * runs
