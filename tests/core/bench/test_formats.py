"""bench --formats: loss, size and times of a pair in each format of a CPU."""

import pytest

from specdec_core.bench.formats import break_even
from specdec_core.cli import main
from specdec_core.metrics import expected_tokens_iid, predicted_speedup
from tests.support.bench_runs import bench_json
from tests.support.shared_drafter import save_shared_drafter
from tests.support.tiny_pair import save_pair


@pytest.fixture(scope="module")
def wide_pair(tmp_path_factory) -> list[str]:
    target, drafter = save_pair(tmp_path_factory.mktemp("wide"), hidden_size=64)
    return ["--target", target, "--drafter", drafter, "--device", "cpu"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("Once upon a time there was a little dog who lived in a big house. " * 40)
    return str(file)


def test_every_format_has_loss_size_and_times(wide_pair, text, capsys):
    report = bench_json(capsys, *wide_pair, "--formats", text)
    assert [figures["quantization"] for figures in report["formats"]] == ["none", "int8", "int4"]
    assert report["tokens"] > 400
    none, int8, int4 = report["formats"]
    for at in (0, 1):
        losses = [figures["models"][at]["loss"] for figures in (none, int8, int4)]
        assert losses[1] == pytest.approx(losses[0], abs=0.05)
        assert losses[2] == pytest.approx(losses[0], abs=0.5)
        assert len(set(losses)) == 3
        sizes = [figures["models"][at]["weights_bytes"] for figures in (none, int8, int4)]
        assert sizes[0] > sizes[1] > sizes[2]
    for figures in report["formats"]:
        assert figures["target_s"].keys() == {"1", "2", "3", "5", "9"}
        assert all(model["same_rows"] in (True, False) for model in figures["models"])


def test_the_table_names_models_and_acceptance(wide_pair, text, capsys):
    assert main(["bench", *wide_pair, "--formats", text]) == 0
    printed = capsys.readouterr().out
    assert "int4: target 1:" in printed
    assert "drafts pay from an acceptance of gamma 1:" in printed
    assert wide_pair[3] in printed


@pytest.mark.parametrize("head_ids", [range(0, 300, 2), range(280, 300)])
def test_a_short_output_layer_has_the_loss_of_the_tokens_that_it_has(
    head_ids, wide_pair, text, tmp_path, capsys
):
    drafter = save_shared_drafter(wide_pair[1], tmp_path / "drafter", head_ids=head_ids)
    pair = [*wide_pair[:3], drafter, *wide_pair[4:]]
    target, short = bench_json(capsys, *pair, "--formats", text)["formats"][0]["models"]
    assert target["covered"] == 1
    if len(head_ids) == 20:  # rare tokens, and the text has none of them
        assert (short["covered"], short["loss"]) == (0, None)
    else:
        assert 0.1 < short["covered"] < 0.9
        assert short["loss"] == pytest.approx(target["loss"], abs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats", "no-such-file.txt"], "cannot be read as text"),
        (["--formats", "TEXT", "--quantization", "int8"], "name none beside it"),
        (["--formats", "EMPTY"], "fewer than 2 tokens"),
    ],
)
def test_what_cannot_be_measured_is_said(wide_pair, text, tmp_path, capsys, arguments, message):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    named = [{"TEXT": text, "EMPTY": str(empty)}.get(argument, argument) for argument in arguments]
    assert main(["bench", *wide_pair, *named]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("gamma", [1, 4])
def test_at_the_break_even_rate_drafts_bring_what_they_cost(gamma):
    rate = break_even(gamma, 0.2, 1.1)
    assert rate is not None
    assert predicted_speedup(expected_tokens_iid(rate, gamma), gamma, 0.2, 1.1) == pytest.approx(1, abs=1e-6)


def test_drafts_that_cost_more_than_they_can_bring_have_no_rate():
    assert break_even(2, 1.0, 1.5) is None
    assert break_even(3, 0.0, 0.9) == pytest.approx(0, abs=1e-6)
