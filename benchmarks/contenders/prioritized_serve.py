"""What the contenders with priorities share: requests to a `Buffer(data, capacity)`.

The first argument is K: so many updates' rows are drawn at once, before their TD errors come back.
"""

import itertools
import sys

import numpy as np
from replay_data import EPISODE_STEPS, data_of, steps

ALPHA, BETA = 0.6, 0.4
ENVS = 50
BATCH_SIZE = 64
K = int(sys.argv[1])
ROWS = K * BATCH_SIZE
STEPS_AT_ONCE = 10 * EPISODE_STEPS


class Updates:
    """Does `{"capacity", "count"}`; an update draws 64 rows and feeds back their TD errors."""

    def __init__(self, buffer_class):
        self.buffer_class = buffer_class
        self.buffers = {}
        draws = np.random.default_rng(0).normal(size=(64, K, BATCH_SIZE))
        self.td_errors = np.abs(draws).astype(np.float32)

    def __call__(self, request):
        capacity, calls = request["capacity"], -(-request["count"] // K)
        if capacity not in self.buffers:
            self.buffers[capacity] = self._filled(capacity)
        self._update(self.buffers[capacity], calls)
        return calls * K

    def _filled(self, capacity):
        """Returns a buffer of which most rows have been drawn and have priorities of their own."""
        data = data_of("vectors", ENVS)
        buffer = self.buffer_class(data, capacity)
        steps_of = list(steps(data, ENVS, 0, STEPS_AT_ONCE))
        for i in range(capacity // ENVS):
            buffer.add(*steps_of[i % len(steps_of)])
        self._update(buffer, capacity // ROWS)
        return buffer

    def _update(self, buffer, calls):
        buffer.update(itertools.islice(itertools.cycle(self.td_errors), calls))
