"""Draws the learning curves in `benchmarks/learning/` and makes a table of their final returns.

    python benchmarks/plot.py      # all files, into docs/learning.png and docs/learning.md
    python benchmarks/plot.py benchmarks/learning/MinAtar-*.csv --png minatar.png

With files it prints the table, and draws if `--png` says where. The picture of the docs has no
presets with a `+`: one part of the family more than another preset, they are in the table.

The aggregate is the interquartile mean of the seeds, with a 95% stratified bootstrap interval
(Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice",
Sections 4.1 to 4.3). With fewer than five runs the interval is their range. Runs of other programs
beside ours are rows with another name in the column `preset`.
"""

import argparse
import csv
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent / "docs"
RATES = HERE / "minatar_parts.csv"
MARKS = ("<!-- made by `python benchmarks/plot.py` -->\n", "<!-- until here -->\n")
SOLVED = {"CartPole-v1": 475.0}  # a return that counts as solved
# Final returns that others published, each with its budget where it is not ours.
PUBLISHED = {
    "CartPole-v1": {"rl-zoo, 1 run": 500.0, "CleanRL JAX, 500k": 498.4},
    "Acrobot-v1": {"rl-zoo": -76.6, "rl-zoo, QR-DQN": -69.1, "CleanRL JAX, 500k": -88.9},
    "MountainCar-v0": {"rl-zoo, 1 run": -100.8, "CleanRL JAX, 500k": -188.9},
    "LunarLander-v3": {"SLM-Lab": 195.0, "SLM-Lab, DDQN+PER": 265.9, "rl-zoo, v2, 100k": 154.0},
}
# Curves that others published: the mean return in training of each so many environment steps.
# Dopamine: google/dopamine, `baselines/atari/data/pong.json`, means of 5 runs.
PUBLISHED_CURVES = {
    "ALE/Pong-v5": {
        "Dopamine Rainbow": (
            250_000,
            (-20.4, -20.6, -18.7, -16.5, -12.6, -1.6, 6.3, 10.7, 13.1, 15.2),
        ),
        "Dopamine IQN": (250_000, (-19.4, -13.8, -8.9, -1.8, 4.3, 8.2, 11.6, 12.8, 14.2, 15.2)),
    }
}


def interquartile_mean(scores, axis=0):
    """Returns the mean of the middle half: a quarter, rounded down, is cut at each end."""
    ordered = np.sort(scores, axis)
    size = ordered.shape[axis]
    return ordered.take(range(size // 4, size - size // 4), axis).mean(axis)


def draw_again(runs, samples, rng):
    """Returns `[samples, runs, ...]`: for each sample as many of the runs as there are."""
    return runs[rng.integers(len(runs), size=(samples, len(runs)))]


def bootstrap_interval(tasks, samples=2_000, units=None):
    """Returns the 2.5th and 97.5th percentile of the interquartile mean over all runs.

    Args:
        tasks: List of arrays, one per task, `[runs]` or `[runs, points]`. Runs are drawn again
            within their task only (stratified), as many as there are.
        samples: Int, how often they are drawn.
        units: List of arrays `[runs]`, one per task, or None. The runs of a task are divided by the
            mean of its unit, which is drawn again too.

    Returns:
        Array `[2]` or `[2, points]`.
    """
    rng = np.random.default_rng(0)
    drawn = [draw_again(task, samples, rng) for task in tasks]
    if units is not None:
        means = [draw_again(unit, samples, rng).mean(axis=1, keepdims=True) for unit in units]
        drawn = [task / mean for task, mean in zip(drawn, means, strict=True)]
    means = interquartile_mean(np.concatenate(drawn, axis=1), axis=1)
    return np.percentile(means, [2.5, 97.5], axis=0)


def performance_profile(scores, thresholds):
    """Returns the fraction of runs `[runs]` above each threshold `[points]`."""
    return (np.asarray(scores)[:, None] > thresholds).mean(axis=0)


def read(paths):
    """Returns for each environment, then preset and budget, its finished runs in order of seeds.

    A run is `(steps, returns, final return)`.
    """
    rows = {}
    for path in paths:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                key = (row["env"], (row["preset"], int(row["budget"])), int(row["seed"]))
                rows.setdefault(key, []).append(row)
    runs = {}
    for (env, setting, seed), of_run in sorted(rows.items()):
        final = [float(row["val_return"]) for row in of_run if row["final"] == "1"]
        curve = [(float(row["env_steps"]), float(row["val_return"])) for row in of_run
                 if row["final"] == "0"]  # fmt: skip
        if len(final) > 1:
            raise ValueError(
                f"Expected one final row of {env}, {setting}, seed {seed}. Received: {len(final)}"
            )
        if final:
            curve = curve or [(float(of_run[-1]["env_steps"]), final[-1])]  # one point
            steps, returns = zip(*curve, strict=True)
            runs.setdefault(env, {}).setdefault(setting, []).append((steps, returns, final[-1]))
    return runs


def finals(runs):
    return np.array([final for _, _, final in runs])


def learning_curve(runs):
    """Returns the mean steps of each evaluation `[points]`, and the returns `[runs, points]`.

    Runs of one preset and budget have the same number of evaluations, a few steps apart.
    """
    steps, returns, _ = zip(*runs, strict=True)
    return np.mean(steps, axis=0), np.array(returns)


def steps_until(runs, threshold):
    """Returns for each run the steps of its first evaluation of at least a return, or infinity."""
    return [
        next(
            (step for step, value in zip(steps, returns, strict=True) if value >= threshold), np.inf
        )
        for steps, returns, _ in runs
    ]


def with_interval(tasks, units=None):
    means = [1.0] * len(tasks) if units is None else [unit.mean() for unit in units]
    scores = np.concatenate([task / mean for task, mean in zip(tasks, means, strict=True)])
    low, high = bootstrap_interval(tasks, units=units)
    return f"{interquartile_mean(scores):.2f} ({low:.2f} to {high:.2f})"


def table(runs):
    """Yields the lines of a Markdown table of final returns."""
    yield "| Environment | Preset | Steps | Seeds | Median | IQM (95% interval) | Min to max |"
    yield "|---|---|---|---|---|---|---|"
    for env, settings in runs.items():
        for (preset, budget), of_setting in settings.items():
            scores = finals(of_setting)
            yield (
                f"| {env} | `{preset}` | {budget:,} | {len(scores)} | {np.median(scores):.2f} "
                f"| {with_interval([scores])} | {scores.min():.2f} to {scores.max():.2f} |"
            )


def solved(runs):
    """Yields a sentence for each preset of an environment that can be solved."""
    for env, threshold in SOLVED.items():
        for (preset, _), of_setting in runs.get(env, {}).items():
            first = steps_until(of_setting, threshold)
            median = np.percentile(first, 50, method="higher")  # one that was observed
            steps, _ = learning_curve(of_setting)
            yield (
                f"{env}, `{preset}`: the first evaluation of at least {threshold:g} came after "
                f"{median:,.0f} steps in the median of {len(first)} seeds, "
                f"of {len(steps)} evaluations in {steps[-1]:,.0f} steps."
            )


def published(runs):
    """Yields the lines of a table of what others published."""
    rows = {}
    for env, values in PUBLISHED.items():
        rows[env] = [", ".join(f"{value:g} ({name})" for name, value in values.items())]
    for env, curves in PUBLISHED_CURVES.items():
        rows.setdefault(env, []).extend(
            f"{', '.join(map(str, curve))} ({name}, in training, each {every:,} steps)"
            for name, (every, curve) in curves.items()
        )
    if runs.keys() & rows.keys():
        yield "| Environment | Published by others |"
        yield "|---|---|"
        yield from (
            f"| {env} | {'; '.join(rows[env])} |" for env in sorted(runs.keys() & rows.keys())
        )


def pooled_table(runs, baseline):
    """Yields the lines of a table of final returns in units of a preset's mean return.

    They are pooled over the environments that the baseline was run on. Its mean must be positive;
    the interval has the spread of that mean too.
    """
    yield f"| Preset, in units of `{baseline}` | Steps | Runs | IQM (95% interval) |"
    yield "|---|---|---|---|"
    for preset, budget in sorted({setting for settings in runs.values() for setting in settings}):
        shared = [settings for settings in runs.values() if (baseline, budget) in settings]
        if shared and all((preset, budget) in settings for settings in shared):
            tasks = [finals(settings[preset, budget]) for settings in shared]
            units = [finals(settings[baseline, budget]) for settings in shared]
            count = sum(map(len, tasks))
            yield f"| `{preset}` | {budget:,} | {count} | {with_interval(tasks, units)} |"


def rates_table(path):
    """Yields the lines of a Markdown table of the frame rates that `minatar_parts.py` measured."""
    yield "| Preset | Frames a second | In units of `minatar` (range) |"
    yield "|---|---|---|"
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            ratio, rate = "{ratio} ({least} to {largest})", int(row["frames_per_second"])
            yield f"| `{row['preset']}` | {rate:,} | {ratio.format(**row)} |"


def draw(runs, path):
    """Writes the picture: a row for each environment, curves on the left, profiles on the right."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from PIL import Image  # matplotlib needs Pillow itself

    figure = Figure(figsize=(10, 3 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 2, squeeze=False)
    for (left, right), (env, settings) in zip(panels, runs.items(), strict=True):
        scores = {setting: finals(of_setting) for setting, of_setting in settings.items()}
        every = np.concatenate(list(scores.values()))
        margin = 0.05 * np.ptp(every) + 0.01 * abs(every).max()
        palette = colormaps["tab10" if len(settings) <= 10 else "tab20"].colors
        left.set_prop_cycle(color=palette)
        right.set_prop_cycle(color=palette)
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 500)
        for (preset, budget), of_setting in settings.items():
            label = f"{preset}, {budget:,} steps, {len(of_setting)} seeds"
            steps, returns = learning_curve(of_setting)
            marker = "o" if len(steps) == 1 else ""
            (line,) = left.plot(steps, interquartile_mean(returns), marker=marker, label=label)
            band = bootstrap_interval([returns])
            left.fill_between(steps, *band, color=line.get_color(), alpha=0.25, linewidth=0)
            right.plot(thresholds, performance_profile(scores[preset, budget], thresholds))
        draw_published(env, left, right)
        left.set(title=env, ylabel="greedy return, IQM")
        right.set(title="final return: runs above it", xlabel="return", ylim=(-0.03, 1.03))
        right.set(xlim=(thresholds[0], thresholds[-1]))
        left.xaxis.set_major_formatter("{x:,.0f}")
        left.legend(fontsize="x-small")
    for left in panels[:, 0]:
        left.set_xlabel("environment steps")
    figure.savefig(path, format="png", dpi=80)
    Image.open(path).convert("RGB").quantize(256).save(path, "png", optimize=True)


def draw_published(env, left, right):
    """Adds what others published, as far as our own steps go."""
    for (name, value), style in zip(
        PUBLISHED.get(env, {}).items(), [":", "--", "-."], strict=False
    ):
        left.axhline(value, color="black", linestyle=style, linewidth=1, label=name)
        right.axvline(value, color="black", linestyle=style, linewidth=1)
    ours = left.get_xlim()
    for (name, (every, curve)), style in zip(
        PUBLISHED_CURVES.get(env, {}).items(), [":", "--"], strict=False
    ):
        steps = every * np.arange(1, len(curve) + 1)
        left.plot(steps, curve, color="black", linestyle=style, marker=".", label=name)
    left.set_xlim(ours)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("csv", nargs="*", help="default: all of benchmarks/learning/")
    parser.add_argument("--png", help="picture (default with no files: docs/learning.png)")
    parser.add_argument("--baseline", help="preset whose mean return is 1 in a pooled table")
    args = parser.parse_args()
    runs = read(args.csv or sorted((HERE / "learning").glob("*.csv")))
    if not runs:
        parser.error("there is no finished run: `python benchmarks/learning.py` makes one")
    if args.csv:
        print(*report(runs, args.baseline), sep="\n")
    else:
        write(DOCS / "learning.md", "\n".join([*report(runs), "", *rates_table(RATES)]))
        runs = {env: without_parts(settings) for env, settings in runs.items()}
        args.png = args.png or DOCS / "learning.png"
    if args.png:
        draw(runs, args.png)


def without_parts(settings):
    return {setting: runs for setting, runs in settings.items() if "+" not in setting[0]}


def report(runs, baseline=None):
    """Returns the lines of all tables; for MinAtar in units of its own program too."""
    parts = [table(runs), solved(runs), published(runs)]
    games = {env: settings for env, settings in runs.items() if env.startswith("MinAtar/")}
    if baseline:
        parts.append(pooled_table(runs, baseline))
    elif {"minatar-dqn"} < {preset for settings in games.values() for preset, _ in settings}:
        parts.append(pooled_table(games, "minatar-dqn"))
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part).splitlines()


def write(page, text):
    """Puts a text between the two marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
