"""What the gate's tests share: looking into a report, and the configuration of a Llama tokenizer."""

from specdec_core.gate.report import Check, PairReport

CUTTING = "how text is cut"
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": None}


def check_named(report: PairReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def statuses(report: PairReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks if check.status != "pass"}
