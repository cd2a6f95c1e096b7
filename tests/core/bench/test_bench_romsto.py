"""Lanes of a checkout of romsto/Speculative-Decoding, with stand-ins for its functions."""

from specdec_core.cli import main
from tests.support.bench_runs import QUICK, bench_json

_ROMSTO = {
    "sampling/__init__.py": (
        "from .base_decoding import autoregressive_generate\n"
        "from .speculative_decoding import speculative_generate\n"
    ),
    "sampling/base_decoding.py": (
        "from utils.logits_processor import GreedyProcessor\n"
        "def autoregressive_generate(inputs, model, max_gen_len=40, logits_processor=GreedyProcessor(1), "
        "eos_tokens_id=1, pad_token_id=0, use_cache=True, debug=False):\n"
        "    return list(range(max_gen_len))\n"
    ),
    "sampling/speculative_decoding.py": (
        "def speculative_generate(inputs, drafter, target, tokenizer=None, gamma=5, logits_processor=None, "
        "max_gen_len=40, eos_tokens_id=1, pad_token_id=0, use_cache=False):\n"
        "    return list(range(max_gen_len)), 0.5\n"
    ),
    "utils/logits_processor.py": (
        "class GreedyProcessor:\n"
        "    def __init__(self, temperature):\n"
        "        self.temperature = temperature\n"
        "class MultinomialProcessor(GreedyProcessor):\n"
        "    pass\n"
    ),
}  # fmt: skip


def test_a_checkout_of_romsto_s_repository_is_measured_beside_ours(pair, capsys, tmp_path):
    for name, source in _ROMSTO.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    report = bench_json(capsys, *pair, *QUICK, "--gamma", "4", "--no-ngram", "--romsto", str(tmp_path))
    lanes = [lane["lane"] for lane in report["tables"][0]["lanes"]]
    assert lanes[2:] == ["Romsto autoregressive", "Romsto speculative, gamma 4"]


def test_a_checkout_that_cannot_be_imported_is_refused_with_the_reason(pair, capsys, tmp_path):
    for name, source in _ROMSTO.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("import no_such_module\n" + source)
    assert main(["bench", *pair, *QUICK, "--romsto", str(tmp_path)]) == 2
    assert "no_such_module" in capsys.readouterr().err
