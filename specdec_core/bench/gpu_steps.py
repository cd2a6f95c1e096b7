"""The steps of the GPU checks, the most important first: the budget may end before the last ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .gpu_answers import stories_step
from .gpu_checks import capture_step, rounds_step
from .gpu_environment import environment_step
from .gpu_graphs import graphs_step
from .gpu_lanes import lanes_step
from .gpu_memory import failed_capture_step, memory_step
from .gpu_products import first_rows_step, products_step, sampling_step
from .gpu_run import StepRun
from .gpu_step_times import step_times_step


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the checks: its name, the most seconds that it may take, and its function."""

    name: str
    seconds: float
    function: Callable[[StepRun], None]


STEPS = (
    Step("environment", 60, environment_step),
    Step("capture_bf16", 60, partial(capture_step, "none")),
    Step("capture_nf4", 60, partial(capture_step, "nf4")),
    Step("stories", 70, stories_step),
    Step("products", 60, products_step),
    Step("llama_1b_bf16", 45, partial(step_times_step, "llama_1b", "bf16")),
    Step("llama_3b_bf16", 55, partial(step_times_step, "llama_3b", "bf16")),
    Step("llama_1b_nf4", 50, partial(step_times_step, "llama_1b", "nf4")),
    Step("llama_3b_nf4", 60, partial(step_times_step, "llama_3b", "nf4")),
    Step("llama_1b_int8", 50, partial(step_times_step, "llama_1b", "int8")),
    Step("llama_3b_int8", 60, partial(step_times_step, "llama_3b", "int8")),
    Step("gemma_2b_nf4", 50, partial(step_times_step, "gemma_2b", "nf4")),
    Step("gemma_7b_nf4", 75, partial(step_times_step, "gemma_7b", "nf4")),
    Step("rounds", 80, rounds_step),
    Step("graphs", 90, graphs_step),
    Step("failed_capture", 40, failed_capture_step),
    Step("memory", 60, memory_step),
    Step("capture_int8", 50, partial(capture_step, "int8")),
    Step("first_rows", 50, first_rows_step),
    Step("sampling", 40, sampling_step),
    Step("lanes_nf4", 150, partial(lanes_step, "nf4")),
    Step("lanes_int8", 150, partial(lanes_step, "int8")),
    Step("lanes_bf16", 150, partial(lanes_step, "bf16")),
)
