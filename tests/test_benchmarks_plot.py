"""`benchmarks/plot.py`: its numbers against hand-computed ones and slow references."""

import csv
import importlib.util
import itertools
import pathlib
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("plot", ROOT / "benchmarks" / "plot.py")
plot = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plot)

COLUMNS = ["env", "preset", "budget", "seed", "env_steps", "val_return", "seconds", "final"]


def slow_mean(scores):
    """The definition: sort, cut a quarter (rounded down) at each end, average the rest."""
    ordered = sorted(scores)
    while len(ordered) > len(scores) - 2 * (len(scores) // 4):
        ordered = ordered[1:-1]
    return sum(ordered) / len(ordered)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 400], 5.25),  # two cut at each end: (3 + 5 + 6 + 7) / 4
        ([9, 1, 2, 3, 100], 14 / 3),  # one cut at each end: (2 + 3 + 9) / 3
        ([3, 1, 2], 2.0),  # nothing is cut
        ([5], 5.0),
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert plot.interquartile_mean(np.array(scores)) == pytest.approx(expected)
    assert slow_mean(scores) == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_interquartile_mean_along_an_axis(axis):
    scores = np.random.default_rng(0).normal(size=(13, 10))
    expected = [slow_mean(column) for column in (scores.T if axis == 0 else scores)]
    np.testing.assert_allclose(plot.interquartile_mean(scores, axis), expected)


def test_interval_against_all_resamples():
    # Each of the 5^5 resamples is equally likely. 0.7% have a mean of 0 and 2.2% the next, 8 / 3;
    # 0.7% have a mean of 200 and 2.2% the one before, (90 + 200 + 200) / 3.
    scores = np.array([0.0, 8.0, 50.0, 90.0, 200.0])
    means = [slow_mean(resample) for resample in itertools.product(scores, repeat=5)]
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(expected, [8 / 3, 490 / 3])
    np.testing.assert_allclose(plot.bootstrap_interval([scores], samples=50_000), expected)


def test_interval_draws_within_each_task():
    # However the runs of a task are drawn, the four are 0, 0, 10, 10: the mean of the middle is 5.
    # Drawn from all four together, they would often be 0, 0, 0, 10.
    tasks = [np.array([0.0, 0.0]), np.array([10.0, 10.0])]
    np.testing.assert_array_equal(plot.bootstrap_interval(tasks), [5.0, 5.0])


def test_interval_in_units_draws_the_unit_too():
    # 4 resamples of the runs by 4 of the unit, whose means are 1, 2, 2 and 3.
    scores, unit = np.array([6.0, 12.0]), np.array([1.0, 3.0])
    ratios = [
        (a + b) / 2 / ((c + d) / 2)
        for a, b in itertools.product(scores, repeat=2)
        for c, d in itertools.product(unit, repeat=2)
    ]
    expected = np.percentile(ratios, [2.5, 97.5], method="nearest")
    np.testing.assert_array_equal(expected, [2.0, 12.0])
    np.testing.assert_allclose(plot.bootstrap_interval([scores], units=[unit]), expected)


def test_a_run_that_is_in_the_files_twice_is_refused(runs):
    with pytest.raises(ValueError, match=r"Expected one final row of A, .*seed 0\. Received: 2"):
        plot.read([runs, runs])


def test_interval_of_curves_is_that_of_each_point():
    curves = np.random.default_rng(1).normal(size=(6, 3))
    points = [plot.bootstrap_interval([column]) for column in curves.T]
    np.testing.assert_allclose(plot.bootstrap_interval([curves]).T, points)


def test_profile_by_hand():
    fractions = plot.performance_profile([2, 4, 1, 2], np.array([0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(fractions, [1.0, 0.75, 0.25, 0.25, 0.0])


@pytest.fixture
def runs(tmp_path):
    """Two games: three runs of ours, one more that did not end, and two of a peer."""
    runs = [
        ("A", "ours", 1, [(10, 1), (22, 2)], 4.0),
        ("A", "ours", 0, [(12, 3), (20, 6)], 8.0),
        ("A", "ours", 2, [(11, 5)], None),
        ("B", "ours", 0, [(10, 0), (20, 0)], 30.0),
        ("A", "peer", 0, [(10, 0), (20, 0)], 2.0),
        ("B", "peer", 0, [(10, 0), (20, 0)], 10.0),
    ]
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for env, preset, seed, curve, final in runs:
            for steps, value in curve:
                writer.writerow([env, preset, 20, seed, steps, value, 0.1, 0])
            if final is not None:
                writer.writerow([env, preset, 20, seed, steps, final, 0.1, 1])
    return path


def test_curves_are_those_of_finished_runs_in_order_of_seeds(runs):
    of_ours = plot.read([runs])["A"]["ours", 20]
    steps, returns = plot.learning_curve(of_ours)
    np.testing.assert_array_equal(steps, [11, 21])
    np.testing.assert_array_equal(returns, [[3, 6], [1, 2]])
    np.testing.assert_array_equal(plot.finals(of_ours), [8, 4])


def test_tables(runs):
    # Of two runs, a quarter of the resamples is 4 and 4, and a quarter 8 and 8.
    *_, ours_a, peer_a, ours_b, _ = plot.table(plot.read([runs]))
    assert ours_a == "| A | `ours` | 20 | 2 | 6.00 | 6.00 (4.00 to 8.00) | 4.00 to 8.00 |"
    assert peer_a == "| A | `peer` | 20 | 1 | 2.00 | 2.00 (2.00 to 2.00) | 2.00 to 2.00 |"
    assert ours_b.startswith("| B | `ours` | 20 | 1 | 30.00 |")
    # In units of the peer: 8 / 2, 4 / 2 and 30 / 10; of 2, 3, 4 nothing is cut. The stratified
    # resamples keep the 3: the sums go from 2 + 2 + 3 to 4 + 4 + 3.
    *_, ours, peer = plot.pooled_table(plot.read([runs]), "peer")
    assert ours == "| `ours` | 20 | 3 | 3.00 (2.33 to 3.67) |"
    assert peer == "| `peer` | 20 | 2 | 1.00 (1.00 to 1.00) |"


def test_minatar_is_pooled_beside_another_preset_alone():
    runs = {"MinAtar/Breakout-v0": {("minatar-dqn", 20): [((20,), (4.0,), 4.0)]}}
    assert len(plot.report(runs)) == 3  # the table of returns: nothing stands beside it
    runs["MinAtar/Breakout-v0"]["minatar", 20] = [((20,), (6.0,), 6.0)]
    assert "| `minatar` | 20 | 1 | 1.50 (1.50 to 1.50) |" in plot.report(runs)


def test_the_command_prints_the_table_and_draws(runs, monkeypatch, capsys):
    picture = runs.with_suffix(".png")
    monkeypatch.setattr(sys, "argv", ["plot.py", str(runs), "--png", str(picture)])
    plot.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[:6] == list(plot.table(plot.read([runs])))
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["plot.py", str(runs)])
    monkeypatch.setattr(plot, "draw", None)  # it is not called
    plot.main()
    assert capsys.readouterr().out.splitlines() == printed
    assert 1_000 < picture.stat().st_size < 200_000


def test_the_picture_of_the_docs_leaves_the_parts_to_the_table():
    settings = {("minatar", 20): [1], ("minatar+noisy", 20): [2], ("minatar-dqn", 20): [3]}
    assert plot.without_parts(settings) == {("minatar", 20): [1], ("minatar-dqn", 20): [3]}


def test_a_run_without_evaluations_is_a_point(tmp_path):
    path = tmp_path / "end.csv"
    path.write_text(",".join(COLUMNS) + "\nA,peer,20,0,19,7.5,0.1,1\n")
    assert plot.read([path]) == {"A": {("peer", 20): [((19.0,), (7.5,), 7.5)]}}


def test_steps_until_a_return():
    runs = [((10, 20, 30), (1, 5, 3), 9.0), ((10, 20, 30), (5, 6, 9), 9.0), ((10,), (4,), 9.0)]
    assert plot.steps_until(runs, 5) == [20, 10, np.inf]
    (line,) = plot.solved({"CartPole-v1": {("ours", 50): [((9, 19), (474.9, 475.0), 0.0)] * 2}})
    assert "`ours`: the first evaluation of at least 475 came after 19 steps" in line
    assert line.endswith("in the median of 2 seeds, of 2 evaluations in 19 steps.")
    early, late = ((9, 19), (475.0, 475.0), 0.0), ((9, 19), (474.9, 475.0), 0.0)
    (line,) = plot.solved({"CartPole-v1": {("ours", 50): [early, late]}})
    assert "came after 19 steps" in line  # of 9 and 19 the later one, not 14


def test_published_values_and_curves(monkeypatch):
    monkeypatch.setattr(plot, "PUBLISHED", {"A": {"one": 2.0, "two, 9k": -3.5}, "C": {"x": 1.0}})
    curve = {"one": (1_000, (-20.4, 3.0))}
    monkeypatch.setattr(plot, "PUBLISHED_CURVES", {"B": curve, "C": curve})
    assert list(plot.published({"B": {}, "A": {}, "C": {}}))[2:] == [
        "| A | 2 (one), -3.5 (two, 9k) |",
        "| B | -20.4, 3.0 (one, in training, each 1,000 steps) |",
        "| C | 1 (x); -20.4, 3.0 (one, in training, each 1,000 steps) |",
    ]
    assert list(plot.published({"D": {}})) == []


def test_a_published_curve_is_drawn_as_far_as_our_steps_go(monkeypatch):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([0, 2_500], [1, 2])
    ours = left.get_xlim()
    monkeypatch.setattr(plot, "PUBLISHED_CURVES", {"B": {"one": (1_000, (-4.0, 3.0, 7.0))}})
    plot.draw_published("B", left, right)
    *_, curve = left.get_lines()
    np.testing.assert_array_equal(curve.get_xydata(), [[1_000, -4], [2_000, 3], [3_000, 7]])
    assert left.get_xlim() == ours
    assert curve.get_label() == "one"


def test_the_table_of_the_page_is_made_from_the_files():
    files = sorted((ROOT / "benchmarks" / "learning").glob("*.csv"))
    page = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    made = page.split(plot.MARKS[0])[1].split(plot.MARKS[1])[0]
    lines = [*plot.report(plot.read(files)), "", *plot.rates_table(plot.RATES)]
    assert made.strip() == "\n".join(lines)


def test_the_table_of_frame_rates(tmp_path):
    path = tmp_path / "rates.csv"
    path.write_text(
        "preset,frames_per_second,ratio,least,largest\n"
        "minatar,4000,1.0,1.0,1.0\nminatar+noisy,3000,0.75,0.7,0.81\n"
    )
    assert list(plot.rates_table(path))[2:] == [
        "| `minatar` | 4,000 | 1.0 (1.0 to 1.0) |",
        "| `minatar+noisy` | 3,000 | 0.75 (0.7 to 0.81) |",
    ]


def test_without_a_finished_run_the_error_names_the_command(tmp_path, monkeypatch, capsys):
    path = tmp_path / "empty.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    monkeypatch.setattr(sys, "argv", ["plot.py", str(path)])
    with pytest.raises(SystemExit):
        plot.main()
    assert "`python benchmarks/learning.py` makes one" in capsys.readouterr().err
