"""Runs contenders in turns and compares their rates as ratios of the same round.

Each contender is a separate process, so two libraries never share threads. It runs for the whole
race, so it compiles once, before the first round; this time is reported separately. In each round
every contender does the same kind of work, in rotating order. Other load on the machine then
affects all of them, so the ratio within a round is more reliable than the rates.

The protocol is one JSON object per line. The contender prints `{"ready": true, "startup_seconds":
s}`. Then it reads a request, works and prints `{"count": n, "seconds": s}`, until its input ends.
`serve` is the contender's side. This module needs only the standard library.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

_STARTED_AT = "RACE_STARTED_AT"  # Environment variable: when the contender was started.
_HERE = os.path.dirname(os.path.abspath(__file__))


class Contender:
    """A process that does work on request.

    The constructor starts `python script *args` and returns when the process is ready or has
    failed. A failed contender keeps the reason in `error` and takes no part in the race.

    Args:
        name: String, its name in tables.
        python: Path of the interpreter that runs it.
        script: Path of the script, relative to `benchmarks/` or absolute.
        args: Strings, the script's arguments. Defaults to none.
        env: Dict of environment variables to add to the present ones. Defaults to none.
    """

    def __init__(self, name, python, script, args=(), env=None):
        self.name = name
        self.startup_seconds = None
        self.error = None
        self._process = None
        path = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))
        command = [str(python), os.path.join(_HERE, str(script)), *map(str, args)]
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    _STARTED_AT: str(time.time()),
                    **(env or {}),
                },
            )
        except OSError as error:
            self.error = str(error)
            return
        self.startup_seconds = self._answer().get("startup_seconds")

    def measure(self, request):
        """Sends `request`, a dict, and returns units of work per second; `None` if it failed."""
        if self.error is None:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # It has ended; the answer says why.
            answer = self._answer()
        if self.error is not None:
            return None
        return answer["count"] / answer["seconds"]

    def close(self):
        """Ends the process."""
        if self._process is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        self._stderr.close()

    def _answer(self):
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if isinstance(answer, dict):
                self.error = answer.get("error")
                return answer
            sys.stderr.write(line)  # A library that prints to stdout.
        self._process.wait()
        self.error = self._last_words()
        return {}

    def _last_words(self):
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        return lines[-1] if lines else f"ended with status {self._process.returncode}"


def race(contenders, rounds, request):
    """Measures every contender once a round, in rotating order.

    Args:
        contenders: List of `Contender`.
        rounds: Integer, measurements of each contender.
        request: Dict sent to every contender, or a function from a contender to such a dict. Use a
            function if the speeds are so different that each needs another amount of work.

    Returns:
        Dict from name to a list of `rounds` rates; the list of a failed contender is empty.
    """
    rates = {contender.name: [] for contender in contenders}
    for round_index in range(rounds):
        first = round_index % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            if contender.error is None:
                asked = request(contender) if callable(request) else request
                rates[contender.name].append(contender.measure(asked))
    for contender in contenders:
        if contender.error is not None:
            rates[contender.name] = []
            print(f"{contender.name} took no part: {contender.error}", file=sys.stderr)
    return rates


def table(rates, baseline, notes=None):
    """Prints the median rates and how many times faster `baseline` is, round by round.

    Args:
        rates: Dict from name to rates, as `race` returns it.
        baseline: The name of the contender with which the others are compared.
        notes: Dict from name to a remark, such as why it took no part. Defaults to none.

    Returns:
        List of dicts, the printed rows, for `write_csv`.
    """
    notes = notes or {}
    rows = [_row(name, rates[name], rates.get(baseline), notes.get(name, "")) for name in rates]
    width = max(len(name) for name in rates)
    print(f"{'':{width}}  {'per second':>12}  {'ratio':>8}  {'min..max':>17}")
    for row in rows:
        if row["median_rate"] == "":
            print(
                f"{row['name']:{width}}  {'not run':>12}  {row['note'] or 'see the errors above'}"
            )
            continue
        numbers = f"{row['name']:{width}}  {row['median_rate']:12,.1f}"
        if row["ratio"] != "":
            spread = f"{row['ratio_min']:.2f}..{row['ratio_max']:.2f}"
            numbers += f"  {row['ratio']:8.2f}  {spread:>17}"
        print(f"{numbers}  {row['note']}".rstrip())
    print(
        f"ratio: rate of {baseline} over this one's, median and range over the rounds", flush=True
    )
    return rows


def write_csv(path, rows):
    """Writes `rows`, dicts with the same keys, to `path`."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def serve(work):
    """Answers requests from standard input until it ends; call it after compiling.

    Args:
        work: Function from a request (a dict) to the number of units done. It must return only
            when they are done, even if the library works in the background.
    """
    now = time.time()
    started_at = float(os.environ.get(_STARTED_AT, now))
    _say({"ready": True, "startup_seconds": round(now - started_at, 3)})
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        count = work(request)
        _say({"count": count, "seconds": time.perf_counter() - start})


def _say(message):
    print(json.dumps(message), flush=True)


def _row(name, own, other, note):
    ratios = (
        [theirs / ours for ours, theirs in zip(own, other, strict=True)] if own and other else []
    )
    return {
        "name": name,
        "median_rate": round(statistics.median(own), 2) if own else "",
        "rounds": len(own),
        "ratio": round(statistics.median(ratios), 3) if ratios else "",
        "ratio_min": round(min(ratios), 3) if ratios else "",
        "ratio_max": round(max(ratios), 3) if ratios else "",
        "note": note,
    }
