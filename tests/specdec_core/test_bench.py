"""The bench command: what it measures, what it prints, and what it refuses. No test looks at a time."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from specdec_core.__main__ import main
from specdec_core.bench.chart import chart_svg
from specdec_core.bench.figures import (
    Drafts,
    LaneFigures,
    Prediction,
    Table,
)
from specdec_core.bench.gpu_checks import capture_equals_eager, greedy_equals_baseline
from specdec_core.bench.lanes import Lane, Ratio, Sample, measure, paired_ratio
from specdec_core.bench.noise import with_noisy_drafter
from specdec_core.bench.prompts import prompt_set, retold
from specdec_core.bench.random_models import SMALL, save_random
from specdec_core.bench.shapes import bigram_pair, next_tokens, partly_other
from specdec_core.engine import Engine
from specdec_core.errors import SettingsError
from specdec_core.settings import Settings

QUICK = ["--max-new-tokens", "12", "--repetitions", "2", "--temperature", "0"]


@pytest.fixture
def pair(pair_folders) -> list[str]:
    return ["--target", pair_folders[0], "--drafter", pair_folders[1], "--device", "cpu"]


def bench_json(capsys, *arguments: str) -> dict:
    assert main(["bench", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- lanes and figures ------------------------------------------------------------------------------


def test_every_lane_of_the_issue_is_measured_in_one_run(pair, capsys):
    report = bench_json(capsys, *pair, *QUICK, "--peers", "--gamma", "1", "3", "auto", "--peer-gamma", "3")
    assert [lane["lane"] for lane in report["tables"][0]["lanes"]] == [
        "baseline", "speculative, gamma 1", "speculative, gamma 3", "speculative, auto", "n-gram, auto",
        "transformers generate", "transformers assisted, gamma 3",
    ]  # fmt: skip


def test_a_speculative_lane_has_every_figure(pair, capsys):
    report = bench_json(capsys, *pair, *QUICK, "--peers", "--gamma", "3", "--peer-gamma", "3")
    lane = next(lane for lane in report["tables"][0]["lanes"] if lane["lane"] == "speculative, gamma 3")
    assert lane["decode_rate"] > 0
    assert lane["time_to_first_token_s"] > 0
    assert len(lane["drafts"]["alpha_by_position"]) == 3
    assert 0 <= lane["drafts"]["alpha"] <= 1
    assert 1 <= lane["drafts"]["tau"] <= 4
    assert lane["prediction"].keys() >= {"v", "speedup", "speedup_iid", "measured_over_predicted"}
    assert lane["overhead_share"] < 1
    for ratio in ("vs_baseline", "vs_transformers", "vs_assisted"):
        assert lane[ratio]["pairs"] == 2
        assert lane[ratio]["low"] <= lane[ratio]["median"] <= lane[ratio]["high"]


def test_verification_is_timed_for_every_number_of_rows(pair, capsys):
    report = bench_json(capsys, *pair, *QUICK, "--gamma", "8", "--no-ngram")
    assert list(report["tables"][0]["verify_s"]) == [str(rows) for rows in range(1, 10)]


def test_memory_and_surroundings_are_reported(pair, capsys):
    report = bench_json(capsys, *pair, *QUICK, "--gamma", "2", "--no-ngram")
    assert report["memory"]["peak"] > report["memory"]["target_weights"] > 0
    assert report["memory"]["caches"] > 0
    assert report["versions"]["torch"] == torch.__version__
    assert report["date"]
    assert report["machine"]
    assert [model["model"] for model in report["roofline"]] == ["target", "drafter"]


def test_a_target_alone_is_measured_without_the_lanes_that_need_a_drafter(pair_folders, capsys):
    report = bench_json(capsys, "--target", pair_folders[0], "--device", "cpu", "--peers", *QUICK)
    lanes = [lane["lane"] for lane in report["tables"][0]["lanes"]]
    assert lanes == ["baseline", "n-gram, auto", "transformers generate"]


def test_people_get_a_table_for_each_temperature(pair, capsys):
    assert main(["bench", *pair, *QUICK, "0.8", "--gamma", "2", "auto"]) == 0
    printed = capsys.readouterr().out
    assert "temperature 0\n" in printed
    assert "temperature 0.8\n" in printed
    assert "auto ÷ the best fixed gamma" in printed


def test_lanes_take_turns_at_being_first():
    order: list[str] = []

    def lane(name: str) -> Lane:
        def answer(prompt, seed):
            order.append(name)
            return Sample(1, 1.0)

        return Lane(name, answer)

    lanes = [lane("a"), lane("b"), lane("c")]
    measure(lanes, ["prompt"], 3, lambda: None)
    assert "".join(order[3:]) == "abcbcacab"
    assert [len(lane.samples) for lane in lanes] == [3, 3, 3]


def test_a_ratio_is_the_median_of_paired_ratios():
    fast, slow = (Lane(name, lambda prompt, seed: None) for name in ("fast", "slow"))
    slow.samples = [Sample(10, seconds) for seconds in (1.0, 10.0, 100.0)]
    fast.samples = [Sample(10, seconds) for seconds in (0.5, 5.0, 25.0)]
    ratio = paired_ratio(fast, slow, lambda sample: sample.answer_rate)
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 4.0)


# --- prompts ----------------------------------------------------------------------------------------


def test_story_prompts_begin_with_the_preset_s_examples():
    prompts = prompt_set("stories", "stories", chats=True)
    assert prompts[0][0]["content"] == "Tell me a story about a boat."
    assert len(prompts) > 20


def test_text_that_repeats_itself_is_a_raw_prompt_with_its_passage_twice():
    for prompt in prompt_set("repeat", None, chats=True):
        beginning = prompt[:20]
        assert prompt.count(beginning) == 3


def test_random_letters_make_other_prompts_each_time_and_the_same_in_every_run():
    prompts = prompt_set("random", None, chats=True)
    assert len(set(prompts)) == len(prompts)
    assert prompts == prompt_set("random", None, chats=True)


def test_a_file_gives_one_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("first\n\n second \n")
    assert prompt_set(str(path), None, chats=False) == ["first", "second"]


@pytest.mark.parametrize("content", [None, "\n \n"])
def test_a_prompt_file_that_is_missing_or_empty_is_refused_by_name(tmp_path, content):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"prompts\.txt"):
        prompt_set(str(path), None, chats=True)


# --- the chart --------------------------------------------------------------------------------------


def _lane(gamma: int, measured: float) -> LaneFigures:
    ratio = Ratio(measured, measured - 0.1, measured + 0.1, 5)
    drafts = Drafts(0.8, 0.7, [0.8] * gamma, 2.0)
    prediction = Prediction(1.1, measured + 0.05, measured + 0.2, 0.95)
    return LaneFigures(f"speculative, gamma {gamma}", gamma, 100.0, 90.0, 0.01, ratio, None, None, drafts,
                       prediction, 0.1)  # fmt: skip


def test_the_chart_is_well_formed_and_has_a_point_for_every_gamma():
    lanes = [_lane(gamma, 1 + gamma / 10) for gamma in (1, 2, 4)]
    table = Table(0.8, 90, 0.001, {1: 0.01}, 0.1, {1: 1.0}, lanes, None)
    root = ElementTree.fromstring(chart_svg([table, table], "stories <1 & 2>"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}circle")) == 6
    assert "prefers-color-scheme: dark" in root.find("{*}style").text


def test_the_chart_is_written_where_it_is_asked_for(pair, capsys, tmp_path):
    path = tmp_path / "speedup.svg"
    bench_json(capsys, *pair, *QUICK, "--gamma", "1", "2", "--chart", str(path))
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


# --- other measurements -----------------------------------------------------------------------------


def test_exactness_is_counted_over_prompts(pair, capsys):
    report = bench_json(capsys, *pair, "--exactness", "2", "--max-new-tokens", "30")
    assert report["compared"] == 2 * (4 + 1 + 4)
    assert report["unexcused"] == 0


def test_a_second_turn_prefills_its_new_message_only(pair, capsys):
    report = bench_json(capsys, *pair, "--history", "100", "300", "1600", "--repetitions", "1")
    short, long = report["turns"]
    assert 80 <= short["history_tokens"] <= 100
    assert 280 <= long["history_tokens"] <= 300
    assert short["new_tokens"] == long["new_tokens"]
    assert report["skipped"] == [1600]


def test_gpu_checks_say_on_stderr_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--gpu-checks", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "CUDA" in printed.err


def test_what_the_gpu_checks_compare_holds_on_the_cpu_too(tmp_path):
    folder = save_random(tmp_path / "llama", "llama", SMALL, torch.device("cpu"))
    for check in (capture_equals_eager, greedy_equals_baseline):
        good, found = check(folder, "none", torch.device("cpu"))
        assert good, found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--repetitions", "0"], "repetitions"),
        (["--gamma", "99"], "gamma"),
        (["--drafter-noise", "-1"], "drafter-noise"),
        (["--temperature", "-1"], "temperature"),
        (["--text", "/no/such/file"], "/no/such/file"),
        (["--chart", "/no/such/folder/c.svg"], "/no/such/folder"),
        (["--romsto", "/no/such/checkout"], "/no/such/checkout"),
    ],
)
def test_what_cannot_be_measured_ends_with_2_and_is_named(pair, capsys, wrong, said):
    assert main(["bench", *pair, *QUICK, *wrong, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err


def test_noise_on_the_drafter_costs_acceptance_and_not_the_text(pair_folders):
    engine = Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    settings = Settings(max_new_tokens=60, temperature=0, gamma=4)
    clean = engine.generate("Once upon a time", settings)
    noisy = with_noisy_drafter(engine, 2.0).generate("Once upon a time", settings)
    assert noisy.token_ids == clean.token_ids
    assert noisy.stats.acceptance_rate < 0.5 * clean.stats.acceptance_rate


# --- pairs made up for their size -------------------------------------------------------------------


@pytest.fixture
def shapes(tmp_path) -> list[str]:
    shape = {
        "model_type": "llama", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 1, "eos_token_id": [2, 3],
    }  # fmt: skip
    paths = []
    for name, layers in (("target", 2), ("drafter", 1)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**shape, "num_hidden_layers": layers}))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_a_made_up_pair_is_accepted_at_the_rate_asked_for(shapes, alpha):
    with bigram_pair(*shapes, alpha=alpha, device="cpu") as engine:
        answer = engine.generate("w10 w20 w30", Settings(max_new_tokens=900, temperature=0, gamma=2, seed=0))
    assert len(answer.token_ids) == 900
    assert answer.stats.acceptance_rate == pytest.approx(alpha, abs=0.06)


def test_followers_are_one_cycle_that_never_ends_an_answer():
    followers = next_tokens(50, {2, 3}, seed=0)
    seen, at = [], 10
    for _ in range(48):
        at = followers[at].item()
        seen.append(at)
    assert sorted(seen) == [n for n in range(50) if n not in (2, 3)]


def test_the_drafter_s_followers_differ_for_the_share_that_is_not_accepted():
    followers = next_tokens(1000, {0}, seed=0)
    other = partly_other(followers, 0.7, {0}, seed=1)
    assert sorted(other.tolist()) == list(range(1000))
    assert (followers == other).float().mean() == pytest.approx(0.7, abs=0.001)


def test_what_was_told_before_is_drafted_without_a_model(shapes):
    with bigram_pair(*shapes, alpha=0.7, device="cpu") as engine:
        prompt = retold(engine, "w10 w20 w30 w40 w50", 60)
        settings = Settings(max_new_tokens=60, temperature=0, gamma=8, drafting="ngram")
        stats = engine.generate(prompt, settings).stats
    assert stats.acceptance_rate == 1
    assert stats.block_efficiency > 7


def test_made_up_shapes_are_benched_like_any_pair(shapes, capsys):
    report = bench_json(
        capsys, "--shapes", *shapes, "--alpha", "0.7", "--device", "cpu", *QUICK, "--gamma", "2"
    )
    assert [lane["lane"] for lane in report["tables"][0]["lanes"]] == [
        "baseline", "speculative, gamma 2", "n-gram, auto",
    ]  # fmt: skip


def test_shapes_of_two_vocabularies_are_refused(shapes, capsys):
    config = json.loads(Path(shapes[1]).read_text())
    Path(shapes[1]).write_text(json.dumps({**config, "vocab_size": 700}))
    assert main(["bench", "--shapes", *shapes, "--device", "cpu"]) == 2
    assert "600 and 700" in capsys.readouterr().err


# --- Romsto's repository ----------------------------------------------------------------------------

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
