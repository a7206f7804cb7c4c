"""What the replay contenders share: requests to a `Buffer(data, envs, n_step, capacity)`."""

import json
import sys

from replay_data import CAPACITY, data_of, resident_bytes, steps

ROWS_AT_ONCE = 2_000  # steps whose arrays are made before the clock starts
WARM_UP_STEPS = 250  # more than an episode: what a library loads or compiles late is no buffer's


def serve(buffer_class, race):
    """Answers requests, or with `--memory KIND` prints the bytes of a stored transition."""
    if "--memory" in sys.argv:
        kind = sys.argv[sys.argv.index("--memory") + 1]
        print(json.dumps({"bytes": bytes_per_transition(buffer_class, kind)}))
    else:
        race.serve(Cases(buffer_class))


class Cases:
    """Does `{"operation": "add" or "sample", "envs", "rows", "n_step", "count"}`."""

    def __init__(self, buffer_class):
        self.buffer_class = buffer_class
        self.buffers = {}

    def __call__(self, request):
        envs, n_step = request["envs"], request.get("n_step", 1)
        if (envs, n_step) not in self.buffers:
            self.buffers[envs, n_step] = self._filled(envs, n_step)
        buffer, rows_of = self.buffers[envs, n_step]
        if request["operation"] == "sample":
            for _ in range(request["count"]):
                buffer.sample(request["rows"])
            return request["count"]
        vector_steps = -(-request["count"] // envs)
        for i in range(vector_steps):
            buffer.add(*rows_of[i % len(rows_of)])
        return vector_steps * envs

    def _filled(self, envs, n_step):
        data = data_of("vectors", envs)
        buffer = self.buffer_class(data, envs, n_step)
        rows_of = list(steps(data, envs, 0, ROWS_AT_ONCE))
        for i in range(-(-CAPACITY // envs)):
            buffer.add(*rows_of[i % len(rows_of)])
        return buffer, rows_of


def bytes_per_transition(buffer_class, kind):
    data = data_of(kind, 1)
    _full(buffer_class, data, WARM_UP_STEPS)
    before = resident_bytes()
    buffer = _full(buffer_class, data, data.memory_capacity)
    return (resident_bytes() - before) / len(buffer)


def _full(buffer_class, data, capacity):
    """Returns a filled buffer from which was drawn now and then, as learning would."""
    buffer = buffer_class(data, 1, 1, capacity)
    for i, step in enumerate(steps(data, 1, 0, capacity)):
        buffer.add(*step)
        if i % 100 == 99:
            buffer.sample(64)
    return buffer
