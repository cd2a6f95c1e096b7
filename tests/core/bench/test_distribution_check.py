"""The chi-squared test of a loaded pair's sampled answers, which those of another distribution must fail."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from specdec_core.bench.distribution import _cell_of, _cells, _pooled, distribution, distribution_lines
from specdec_core.cli import main
from specdec_core.engine import Engine
from specdec_core.errors import SettingsError
from tests.support.bench_runs import bench_json
from tests.support.tiny_pair import save_pair


def test_sampled_answers_follow_the_target(capsys):
    report = bench_json(capsys, "--preset", "stories", "--distribution", "200")
    assert 0.5 < report["rules"][0]["share"] <= 1
    assert report["follows"]
    assert [fit["rule"] for fit in report["rules"]] == ["rejection", "coupled"]
    assert all(fit["cells"] > 3 and 0.5 < fit["acceptance"] < 1 for fit in report["rules"])


def test_answers_of_another_distribution_do_not(monkeypatch):
    engine = Engine.load("stories", device="cpu")
    stream = engine.stream
    monkeypatch.setattr(
        engine, "stream", lambda prompt, own, session: stream(prompt, replace(own, temperature=0.6), session)
    )
    report = distribution(engine, 200)
    assert not report.follows
    assert "200 answers per rule do NOT follow the target's" in distribution_lines(report)[0]


def test_the_command_fails_where_answers_do_not_follow(monkeypatch, capsys):
    monkeypatch.setattr("specdec_core.bench.distribution.LOWEST_P", 1.1)
    assert main(["bench", "--preset", "stories", "--distribution", "100"]) == 1
    assert "100 answers per rule do NOT follow" in capsys.readouterr().out


def test_an_answer_is_in_the_cell_of_its_longest_likely_beginning():
    cells = {(1, 2, 3): 0.5, (1, 2, -1): 0.1, (1, -1): 0.2, (-1,): 0.2}
    places = {(1, 2, 3): (1, 2, 3), (1, 2, 9): (1, 2, -1), (1, 2): (1, 2, -1), (1, 8, 3): (1, -1)}
    places |= {(1,): (1, -1), (7, 2, 3): (-1,), (): (-1,)}
    assert {ids: _cell_of(ids, cells) for ids in places} == places


def test_rare_cells_are_counted_as_one_of_five_or_more():
    counts = Counter({(1,): 60, (2,): 30, (3,): 4, (4,): 6})
    assert _pooled(counts, {(1,): 58.0, (2,): 36.0, (3,): 2.0, (4,): 4.0}) == (
        [10, 30, 60],
        [6.0, 36.0, 58.0],
    )
    assert _pooled(counts, {(1,): 96.0, (2,): 1.0, (3,): 2.0, (4,): 1.0}) == ([100], [100.0])


def test_all_cells_together_have_the_whole_probability():
    engine = Engine.load("stories", device="cpu")
    cells = _cells(engine.pair, [5, 6, 7], 0.05)
    assert sum(cells.values()) == pytest.approx(1)
    assert max(map(len, cells)) == 3


def test_a_pair_without_a_chat_template_is_asked_in_raw_text(tmp_path):
    target, drafter = save_pair(tmp_path)
    for folder in (target, drafter):
        Path(folder, "chat_template.jinja").unlink()
    engine = Engine.load(target=target, drafter=drafter, device="cpu")
    with pytest.raises(SettingsError, match="Draw more"):
        distribution(engine, 100)


def test_too_few_answers_and_a_target_alone_are_refused(engine, pair_folders):
    with pytest.raises(SettingsError, match="Draw more"):
        distribution(engine, 100)
    with pytest.raises(SettingsError, match="a target alone"):
        distribution(Engine.load(target=pair_folders[0], device="cpu"), 100)
