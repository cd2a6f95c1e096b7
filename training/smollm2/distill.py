"""Command line of the distillation, and the process that watches it.

    python -m training.smollm2.distill --data build/smollm2 --out build/smollm2/out --seconds 290

The work runs in a child process, so this one imports no torch.
"""

import argparse
import sys
import time
from pathlib import Path

from .recovery import watch

STARTED = time.time()
"""Start of the run's clock, in seconds since the epoch."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smollm2.distill", description="Distil a drafter within a fixed time."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder that prepare wrote")
    add("--out", type=Path, required=True, help="folder for the drafters, the log and the conversations")
    add("--seconds", type=float, default=290, help="wall clock of the whole command")
    add("--device", default="cuda")
    add("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    add("--layers", default="0,1,28,29", help="layers of the target; several drafters apart by ;")
    add("--slots", type=int, default=2048, help="conversations written at once")
    add("--max-positions", type=int, default=512, help="positions of the longest conversation")
    add("--generate-share", type=float, default=0.35, help="share of the time until training begins")
    add("--batch-tokens", type=int, default=16384, help="tokens of a training batch, padding included")
    add("--peak-rate", type=float, default=1e-3, help="largest learning rate")
    add("--tv-weight", type=float, default=0.5, help="weight of the rejection probability in the loss")
    add("--weight-decay", type=float, default=0.05)
    add("--baseline", type=Path, help="folder of a saved drafter to evaluate too")
    add("--store-gib", type=float, default=30, help="memory for the target's states")
    add("--shard-mb", type=float, default=9, help="size that each file of a drafter stays below")
    add("--conversations-mb", type=float, default=14, help="size of the conversations that are kept")
    add("--reserve-s", type=float, default=4, help="seconds to save and evaluate a drafter; 15 on a CPU")
    add("--seed", type=int, default=1)
    add("--safe", action="store_true", help="no Triton, no CUDA graph")
    add("--started", type=float, help=argparse.SUPPRESS)  # given to the child: the run's clock
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command under its watcher; return the exit status."""
    arguments = sys.argv[1:]
    options = parse(arguments)
    if options.started is None:
        child = [sys.executable, "-u", "-m", "training.smollm2.distill", *arguments]
        return watch([*child, "--started", str(STARTED)], STARTED + options.seconds)
    from .pipeline import RunPlan, run

    fields = vars(options)
    started = fields.pop("started")
    layer_sets = [[int(index) for index in each.split(",")] for each in fields.pop("layers").split(";")]
    run(RunPlan(layer_sets=layer_sets, **fields), started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
