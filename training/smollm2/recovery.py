"""Recovery of a run with a deadline: a series of attempts, and a fresh process where only that helps.

Knows nothing of what is attempted. Imports no torch, so that the watching process starts at once.
"""

import gc
import json
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from .run_log import RunLog

Result = TypeVar("Result")

GRACE_S = 10
"""Seconds after its deadline at which a process counts as hung."""
RESTART_S = 60
"""Seconds that must be left for a second process to be worth its start."""


class ContextLostError(RuntimeError):
    """State that only a fresh process repairs: a CUDA context, or a generator left in capture."""


def watch(command: Sequence[str], deadline: float) -> int:
    """Run `command`; after a failure run it once more with `--safe`. Return the last exit status.

    A broken CUDA context or a hang then costs one attempt and not the whole run. `deadline` is in seconds
    since the epoch; a process that outlives it is killed.
    """
    status = _run_until(command, deadline + GRACE_S)
    if status == 0 or "--safe" in command or deadline - time.time() < RESTART_S:
        return status
    print(json.dumps({"phase": "watch", "message": f"exit status {status}, again with --safe"}), flush=True)
    return _run_until([*command, "--safe"], deadline + GRACE_S)


def _run_until(command: Sequence[str], deadline: float) -> int:
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=max(1, deadline - time.time()))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def first_success(
    log: RunLog, phase: str, attempts: Sequence[Callable[[], Result]], between: Callable[[], None]
) -> Result | None:
    """Return the result of the first attempt that raises nothing, or None; `between` frees memory.

    Failures are logged under `phase`. One that leaves the CUDA context unusable is raised as
    ContextLostError.
    """
    for number, attempt in enumerate(attempts, 1):
        try:
            return attempt()
        except ContextLostError:
            raise
        except Exception as error:
            trace = traceback.format_exc()[-700:]
            log.write(phase, message=f"attempt {number} failed: {error!r}"[:500], trace=trace)
            if "CUDA error" in str(error) or "AcceleratorError" in repr(error):
                raise ContextLostError(f"{phase}: {error}") from error
        # After the handler: the exception's frames keep the attempt's tensors alive.
        gc.collect()
        between()
    log.write(phase, message="no attempt succeeded")
    return None
