"""One environment in two hands: once 4 to 6% of the sampled rows joined two episodes."""

import copy
import pickle

import gymnasium as gym
import keras
import numpy as np
import pytest
from envs import CountingEnv, counting_vector

import keras_dqn
from keras_dqn import CollectTransitions, EvaluatePolicy, Greedy, ReplayBuffer, SoftTargetUpdate


def always(action):
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    network.set_weights([np.zeros((1, 3)), np.eye(3)[action]])
    agent = keras_dqn.DQN(network)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return agent


def collector(env, replay=None, **kwargs):
    replay = replay or ReplayBuffer.from_env(env, 1_000, seed=0)
    return CollectTransitions(env, replay, exploration=Greedy(), warmup_steps=10, seed=0, **kwargs)


def fit(collect, callbacks=(), epochs=2, agent=None):
    (agent or always(1)).fit(
        collect.replay.dataset(4, gamma=0.5),
        steps_per_epoch=6,
        epochs=epochs,
        callbacks=[collect, SoftTargetUpdate(), *callbacks],
        verbose=0,
    )


def stored(replay):
    observation, transition, _ = replay.sample(3_000, gamma=0.5)
    return {
        (float(a), float(b))
        for a, b in zip(observation[:, 0], transition["next_observation"][:, 0], strict=True)
    }


def assert_no_row_joins_two_episodes(replay):
    """Counters go up by one with each step, and by one more with each reset."""
    assert {after - before for before, after in stored(replay)} == {1.0}


MAKERS = {
    "single": lambda: CountingEnv((5,)),
    "vector": lambda: counting_vector("NextStep"),
}


def other_hands(env):
    wrapped = gym.wrappers.TimeLimit(env, 99) if isinstance(env, gym.Env) else env
    return {
        "evaluator": lambda: EvaluatePolicy(env, episodes=2),
        "evaluator of a wrapper": lambda: EvaluatePolicy(wrapped, episodes=2),
    }


@pytest.mark.parametrize("make_env", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("hand", ["evaluator", "evaluator of a wrapper"])
def test_an_evaluator_of_the_collectors_environment_is_noticed(make_env, hand):
    env = make_env()
    collect = collector(env)
    with pytest.raises(RuntimeError, match="stepped by EvaluatePolicy after the last step of Coll"):
        fit(collect, [other_hands(env)[hand]()])
    assert_no_row_joins_two_episodes(collect.replay)


@pytest.mark.parametrize("make_env", MAKERS.values(), ids=MAKERS)
def test_a_reset_of_ones_own_between_two_fits_is_noticed_and_mended(make_env):
    env = make_env()
    collect, agent = collector(env), always(1)
    fit(collect, agent=agent)
    env.reset()
    with pytest.raises(RuntimeError, match=r"by your own code after .* start new episodes with"):
        fit(collect, agent=agent)
    collect.reset()
    fit(collect, agent=agent)
    assert_no_row_joins_two_episodes(collect.replay)


def test_two_collectors_on_one_environment_are_noticed():
    env = CountingEnv((5,))
    one, other = collector(env), collector(env)
    one.warm_up()
    other.warm_up()
    with pytest.raises(
        RuntimeError, match="stepped by CollectTransitions after the last step of CollectTrans"
    ):
        one.collector.collect(always(0).policy(), 3)


def test_environments_of_their_own_are_left_alone():
    collect = collector(CountingEnv((5,)))
    fit(collect, [EvaluatePolicy(CountingEnv((5,)), episodes=2)], epochs=3)
    assert_no_row_joins_two_episodes(collect.replay)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copied_environment_counts_by_itself(copied):
    env = CountingEnv((50,))
    collect = collector(env)
    collect.warm_up()
    twin = copied(env)
    before = env.counter
    for _ in range(4):
        twin.step(0)
    assert (env.counter, twin.counter) == (before, before + 4)
    collect.collector.collect(always(0).policy(), 3)


def test_a_dataset_of_another_buffer_is_refused():
    env = CountingEnv((5,))
    collect, other = collector(env), ReplayBuffer.from_env(env, 100, seed=0)
    other.add(np.zeros(1), 0, 0.0, False, False, np.ones(1))
    with pytest.raises(ValueError, match="`replay` must be the buffer whose dataset `fit` trains"):
        always(1).fit(other.dataset(4), steps_per_epoch=2, callbacks=[collect], verbose=0)


def test_one_collector_twice_is_refused():
    collect = collector(CountingEnv((5,)))
    with pytest.raises(ValueError, match="A collector must be among the callbacks once"):
        fit(collect, [collect])


def test_two_updates_of_one_target_are_refused():
    collect, agent = collector(CountingEnv((5,))), always(1)
    explicit = SoftTargetUpdate(0.1, source=agent.network, target=agent.target_network)
    for second in (SoftTargetUpdate(0.5), explicit):
        with pytest.raises(ValueError, match="Two `SoftTargetUpdate`s of one `fit` must have diff"):
            fit(collect, [second], agent=agent)


def test_a_new_collector_of_a_trained_agent_is_told_once():
    agent = always(1)
    fit(collector(CountingEnv((5,))), agent=agent)
    collect = collector(CountingEnv((5,)))
    with pytest.warns(UserWarning, match="trained for 12 updates, and its collector is new"):
        fit(collect, agent=agent)
    fit(collect, agent=agent)  # it has steps behind it now


class OldEnv(CountingEnv):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


def test_an_environment_that_returns_four_values_is_refused():
    with pytest.raises(TypeError, match=r"`env.step` must return observation, .* Received: 4"):
        collector(OldEnv((5,))).warm_up()


class Interrupted(CountingEnv):
    """Is interrupted once, in the middle of its 14th step, as by Ctrl-C."""

    num_steps = 0

    def step(self, action):
        result = super().step(action)
        self.num_steps += 1
        if self.num_steps == 14:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_collecting_goes_on_with_new_episodes_after_an_interrupted_step(kind):
    env = Interrupted((50,))
    if kind == "vector":
        env = gym.vector.SyncVectorEnv([lambda: Interrupted((50,))])
    collect, agent = collector(env), always(1)
    with pytest.raises(KeyboardInterrupt):
        fit(collect, agent=agent)
    held = len(collect.replay)
    assert held == 13
    fit(collect, agent=agent)
    assert len(collect.replay) == held + 1 + 12  # the interrupted step was still owed
    assert_no_row_joins_two_episodes(collect.replay)
