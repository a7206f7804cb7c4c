"""Random steps with numbered observations, and what a buffer has stored, row by row."""

import gymnasium as gym
import numpy as np

from keras_dqn import ReplayBuffer

ACTIONS = gym.spaces.Discrete(3, start=5)


SPACES = {
    "float32": (gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), None),
    "Discrete": (gym.spaces.Discrete(100_000), None),
    "Dict": (
        gym.spaces.Dict(
            image=gym.spaces.Box(0, 255, (2, 1), np.uint8),
            number=gym.spaces.Discrete(100_000),
        ),
        None,
    ),
    "3 frames": (gym.spaces.Box(0, 65_535, (3, 2), np.uint16), 3),
}


BOUNDARY = 4


class Walk:
    """Random steps of E environments; each observation has its own number."""

    def __init__(self, kind, num_envs, rng, first=0):
        self.kind, self.num_envs, self.rng = kind, num_envs, rng
        self.ticks = [first] * num_envs
        self.starts = [first] * num_envs

    def observation(self, env):
        number = self.ticks[env] * self.num_envs + env
        if self.kind == "float32":
            return np.full(2, number, np.float32)
        if self.kind == "Discrete":
            return np.int32(number)
        if self.kind == "Dict":
            return {
                "image": np.array([[number % 256], [number // 256]], np.uint8),
                "number": number,
            }
        ticks = np.maximum(np.arange(self.ticks[env] - 2, self.ticks[env] + 1), self.starts[env])
        return np.repeat(ticks[:, None] * self.num_envs + env, 2, axis=1).astype(np.uint16)

    def observations(self):
        observations = [self.observation(e) for e in range(self.num_envs)]
        if self.kind == "Dict":
            return {key: np.stack([o[key] for o in observations]) for key in ("image", "number")}
        return np.stack(observations)

    def restart(self, env):
        self.ticks[env] += 1
        self.starts[env] = self.ticks[env]

    def step(self):
        """Returns the arguments of `add`."""
        rng, num_envs = self.rng, self.num_envs
        for e in range(num_envs):
            if rng.random() < 0.05:
                self.restart(e)  # other code has reset it: the episode is cut
        where = rng.random(num_envs) < 0.9
        before = self.observations()
        terminated, truncated = (where & (rng.random(num_envs) < 0.15) for _ in range(2))
        for e in np.flatnonzero(where):
            self.ticks[e] += 1
        after = self.observations()
        for e in np.flatnonzero(terminated | truncated):
            self.restart(e)
        step = (before, rng.integers(5, 8, num_envs), rng.normal(size=num_envs))
        return (*step, terminated, truncated, after), where


def buffer(kind, num_rows, num_envs, cls=ReplayBuffer, **kwargs):
    space, frame_stack = SPACES[kind]
    kwargs = {"num_envs": num_envs, "frame_stack": frame_stack, "seed": 0, **kwargs}
    return cls(num_rows * num_envs, space, ACTIONS, **kwargs)


def ring(replay, env):
    """Returns all that is stored of an environment: one list entry a row."""
    state, arrays = replay.get_state(), replay.row_arrays()
    size = len(arrays["flags"]) // replay.num_envs
    head, runs = state["heads"][env], state["runs"][env]
    rows = []
    for row in range(max(0, head - (size - 1)), head + 1):
        slot = env * size + row % size
        entries = {name: array[slot].tolist() for name, array in arrays.items()}
        if row == head:
            entries = {name: x for name, x in entries.items() if name.startswith("obs") and runs}
        elif entries["flags"] >= BOUNDARY:  # its action and reward mean nothing
            del entries["action"], entries["reward"]
        rows.append(entries)
    return head, runs, rows


def assert_draws_equal(ours, theirs):
    for n_step in (1, 3):
        assert_equal(*(batch_or_error(replay, n_step) for replay in (ours, theirs)))


def batch_or_error(replay, n_step):
    try:
        return replay.sample(40, n_step=n_step, gamma=0.9)
    except RuntimeError as error:
        return str(error)


def assert_equal(ours, theirs):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, (list, tuple)):
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs)
