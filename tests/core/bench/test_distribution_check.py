"""The chi-squared test of a loaded pair's sampled answers, which those of another distribution must fail."""

from collections import Counter
from dataclasses import replace

import pytest
from scipy.stats import chisquare

from specdec_core.bench.distribution import _chi_squared, distribution, distribution_lines
from specdec_core.engine import Engine
from specdec_core.errors import SettingsError
from tests.support.bench_runs import bench_json


def test_sampled_answers_follow_the_target(capsys):
    report = bench_json(capsys, "--preset", "stories", "--distribution", "200")
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
    assert "200 answers a rule do NOT follow the target's" in distribution_lines(report)[0]


def test_the_statistic_is_scipys():
    expected = {(1,): 40.0, (2,): 30.0, (3,): 20.0}
    counts = Counter({(1,): 35, (2,): 38, (3,): 15, (4,): 7, (5,): 5})
    cells, chi_squared = _chi_squared(counts, expected, 100)
    assert cells == 4
    assert chi_squared == pytest.approx(chisquare([35, 38, 15, 12], [40, 30, 20, 10]).statistic)


def test_rare_beginnings_are_counted_with_another():
    cells, chi_squared = _chi_squared(Counter({(1,): 60, (2,): 36, (9,): 4}), {(1,): 58.0, (2,): 39.0}, 100)
    assert cells == 2
    assert chi_squared == pytest.approx(chisquare([60, 40], [58, 42]).statistic)


def test_too_few_answers_and_a_target_alone_are_refused(pair, tmp_path):
    target, drafter = pair[1], pair[3]
    with pytest.raises(SettingsError, match="Draw more"):
        distribution(Engine.load(target=target, drafter=drafter, device="cpu"), 100)
    with pytest.raises(SettingsError, match="No drafter"):
        distribution(Engine.load(target=target, device="cpu"), 100)
