"""Helpers of the gate's tests: look-ups in a report, the configuration of a Llama tokenizer."""

from specdec_core.gate.report import Check, PairReport

CUTTING = "how text is cut"
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": None}


def check_named(report: PairReport, name: str) -> Check:
    """Return a report's check by name."""
    return next(check for check in report.checks if check.name == name)


def statuses(report: PairReport) -> dict[str, str]:
    """Return the statuses of the checks that did not pass, by name."""
    return {check.name: check.status for check in report.checks if check.status != "pass"}
