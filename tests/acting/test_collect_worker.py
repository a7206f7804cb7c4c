"""A worker's blocks give the buffer that a `Collector` with the same seed gives."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import keras_dqn
from keras_dqn.acting.collect_worker import CollectWorker, Order, RingSpec, WorkerSettings

WEIGHTS = np.array([[1.0, -1.0], [0.5, 2.0], [-3.0, 1.0], [0.1, 0.2]])


class Linear:
    """A policy whose values are a matrix times the observations; it notes how it was asked."""

    def __init__(self):
        self.weights = [WEIGHTS]
        self.asked = []

    def set_weights(self, weights):
        self.weights = weights

    def action_values(self, observation):
        self.asked.append(len(observation))
        return (observation @ self.weights[0]).astype(np.float32)


def make_env(num_envs):
    if num_envs is None:
        return gym.make("CartPole-v1")
    return SyncVectorEnv([lambda: gym.make("CartPole-v1")] * num_envs, autoreset_mode="NextStep")


def make_worker(num_envs, exploration, state=None, seed=3):
    replay = keras_dqn.ReplayBuffer.from_env(
        make_env(num_envs), 1_000, num_envs=2 * (num_envs or 1)
    )
    rings = RingSpec.of(replay, num_envs or 1)
    settings = WorkerSettings(lambda: make_env(num_envs), exploration, rings, 20, 2, seed)
    worker = CollectWorker(settings, state)
    worker.set_policy(Linear())
    return worker, replay


def rows(replay, envs):
    rings = replay._rings
    parts = []
    for env in envs:
        slots = env * rings.ring_size + np.arange(rings.heads_list[env])
        arrays = {name: array[slots] for name, array in rings.arrays().items()}
        for name in ("action", "reward"):  # they mean nothing in a boundary row
            arrays[name][arrays["flags"] >= 4] = 0
        parts.append({name: array.tolist() for name, array in arrays.items()})
    return parts


@pytest.mark.parametrize("num_envs", [None, 3])
def test_blocks_hold_what_a_collector_adds(num_envs):
    env = make_env(num_envs)
    alone = keras_dqn.ReplayBuffer.from_env(env, 1_000)
    rule = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.0, 100))
    collector = keras_dqn.Collector(env, alone, exploration=rule, seed=3)
    worker, replay = make_worker(num_envs, keras_dqn.EpsilonGreedy(rule.epsilon))
    policy, ended, taken = Linear(), 0, 0
    for number, num_steps in enumerate([7, 20, 13, 1, 19, 20]):
        at_random, exactly = number == 1, number == 4
        before = collector.episodes
        counts = (collector.env_steps, collector.episodes)
        if at_random:
            collector.collect_at_random(num_steps)
        else:
            collector.collect(policy, num_steps, exactly=exactly)
        collected = worker.collect(Order(num_steps, at_random, exactly, *counts))
        replay.add_block(collected.block, first_env=num_envs or 1)
        taken += collected.num_steps
        ended += collected.ended.number
        assert collected.ended.number == collector.episodes - before
        assert collected.logs == rule.logs
    assert taken == collector.env_steps == len(replay)
    assert ended == collector.episodes > 1
    envs = range(num_envs or 1)
    assert rows(replay, [env + len(envs) for env in envs]) == rows(alone, envs)
    assert not any(replay._rings.heads_list[: len(envs)])


def test_new_weights_are_used_and_ratings_are_by_them():
    worker, replay = make_worker(None, keras_dqn.Greedy())
    worker.collect(Order(5))
    collected = worker.collect(Order(4, rating=(0.9, 2)), [-WEIGHTS])
    replay.add_block(collected.block)
    env, rows_before_head, td_error = collected.block.rated
    values = collected.block.observations[0] @ -WEIGHTS
    actions, rewards = collected.block.actions, collected.block.rewards
    flags = collected.block.flags[1:]
    assert not flags.any()
    assert (actions[:-1] == values.argmax(axis=1)[:-1]).all()
    by_row = dict(zip(rows_before_head.tolist(), td_error.tolist(), strict=True))
    assert not env.any()
    for row in range(len(actions) - 3):  # the last window is not complete
        target = rewards[row] + 0.9 * rewards[row + 1] + 0.81 * values[row + 2].max()
        expected = abs(target - values[row, actions[row]])
        assert by_row[len(actions) - 1 - row] == pytest.approx(expected, rel=1e-5)


def test_warnings_are_given_to_the_process_that_trains_once():
    class Overshoots(gym.Wrapper):
        def step(self, action):
            observation, *rest = self.env.step(action)
            return observation + np.float32(9.0), *rest

    replay = keras_dqn.ReplayBuffer.from_env(make_env(None), 100)
    settings = WorkerSettings(
        lambda: Overshoots(make_env(None)), keras_dqn.Greedy(), RingSpec.of(replay, 1), 20, 1, 0
    )
    worker = CollectWorker(settings)
    first, second = (worker.collect(Order(5, at_random=True)) for _ in range(2))
    (text,) = first.warnings
    assert "is outside the bounds of" in text
    assert second.warnings == []


def test_another_worker_goes_on_from_the_state():
    whole, _ = make_worker(3, keras_dqn.EpsilonGreedy(0.5))
    first, replay = make_worker(3, keras_dqn.EpsilonGreedy(0.5))
    for worker in (whole, first):
        block = worker.collect(Order(20)).block
    replay.add_block(block)
    second, _ = make_worker(3, keras_dqn.EpsilonGreedy(0.5), first.get_state(), seed=99)
    wanted, block = (worker.collect(Order(20)).block for worker in (whole, second))
    for name in ("observations", "actions", "rewards", "counts", "runs"):
        np.testing.assert_array_equal(getattr(block, name), getattr(wanted, name), err_msg=name)
    num_boundaries = int(np.count_nonzero(replay._rings.flags >= 4))
    heads = replay._rings.heads()
    replay.add_block(block)
    new = replay._rings.heads() - heads
    assert (new[:3] == block.counts).all()  # no row between the blocks
    assert np.count_nonzero(replay._rings.flags >= 4) >= num_boundaries
