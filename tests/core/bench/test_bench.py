"""The bench command: measurements, output, refusals. No test depends on a time."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from specdec_core.bench.chart import chart_svg
from specdec_core.bench.figures import Drafts, LaneFigures, PredictedSpeedup, Table
from specdec_core.bench.lanes import Lane, Sample, measure, paired_ratio
from specdec_core.bench.noise import with_noisy_drafter
from specdec_core.bench.prompts import prompt_set
from specdec_core.cli import main
from specdec_core.engine import Engine
from specdec_core.errors import SettingsError
from specdec_core.ratio import Ratio
from specdec_core.settings import Settings
from tests.support.bench_runs import QUICK, bench_json

# --- lanes and figures ------------------------------------------------------------------------------


def test_every_lane_of_the_issue_is_measured_in_one_run(pair, capsys):
    report = bench_json(capsys, *pair, *QUICK, "--peers", "--gamma", "1", "3", "auto", "--peer-gamma", "3")
    assert [lane["lane"] for lane in report["tables"][0]["lanes"]] == [
        "baseline", "speculative, gamma 1", "speculative, gamma 3", "speculative, auto", "n-gram, auto",
        "both, auto", "transformers generate", "transformers assisted, gamma 3",
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
    prediction = PredictedSpeedup(1.1, measured + 0.05, measured + 0.2, 0.95)
    name = f"speculative, gamma {gamma}"
    return LaneFigures(name, gamma, 100.0, 90.0, 0.01, ratio, None, None, None, drafts, prediction, 0.1)


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
    assert report["compared"] == 2 * (4 + 1 + 4 + 4 * (1 + 1) + 2)
    assert report["unexcused"] == 0


def test_a_second_turn_prefills_its_new_message_only(pair, capsys):
    report = bench_json(capsys, *pair, "--history", "100", "300", "1600", "--repetitions", "1")
    short, long = report["turns"]
    assert 80 <= short["history_tokens"] <= 100
    assert 280 <= long["history_tokens"] <= 300
    assert short["new_tokens"] == long["new_tokens"]
    assert report["skipped"] == [1600]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--repetitions", "0"], "repetitions"),
        (["--gamma", "99"], "gamma"),
        (["--repetitions", "-3"], "repetitions"),
        (["--drafter-noise", "-1"], "drafter-noise"),
        (["--drafter-noise", "nan"], "drafter-noise"),
        (["--drafter-noise", "inf"], "drafter-noise"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha", "1.5"], "alpha"),
        (["--exactness", "0"], "exactness"),
        (["--exactness", "-2"], "exactness"),
        (["--history", "0"], "history"),
        (["--history", "100", "-5"], "history"),
        (["--peer-gamma", "0"], "peer-gamma"),
        (["--peer-gamma", "99"], "peer-gamma"),
        (["--temperature", "nan"], "temperature"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--gpu-checks", "--repetitions", "0"], "repetitions"),
        (["--gpu-checks", "--budget", "0"], "--budget"),
        (["--gpu-checks", "--budget", "nan"], "--budget"),
        (["--smoke"], "--gpu-checks"),
        (["--budget", "9"], "--gpu-checks"),
        (["--temperature", "-1"], "temperature"),
        (["--text", "/no/such/file"], "/no/such/file"),
        (["--chart", "/no/such/folder/c.svg"], "/no/such/folder"),
        (["--romsto", "/no/such/checkout"], "/no/such/checkout"),
        (["--llama-cpp", "/no/such.gguf"], "/no/such.gguf"),
    ],
)
def test_what_cannot_be_measured_ends_with_2_and_is_named(pair, capsys, wrong, words):
    assert main(["bench", *pair, *QUICK, *wrong, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err


def test_noise_on_the_drafter_costs_acceptance_and_not_the_text(pair_folders):
    engine = Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    settings = Settings(max_new_tokens=60, temperature=0, gamma=4)
    clean = engine.generate("Once upon a time", settings)
    noisy = with_noisy_drafter(engine, 2.0).generate("Once upon a time", settings)
    assert noisy.token_ids == clean.token_ids
    assert noisy.stats.acceptance_rate < 0.5 * clean.stats.acceptance_rate
