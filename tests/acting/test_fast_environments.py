"""Environments in C++, through the collector: what they call a step is one."""

import gymnasium as gym
import numpy as np
import pytest

import keras_dqn
from keras_dqn.acting.environment_stepper import EnvironmentStepper

pytestmark = [
    pytest.mark.filterwarnings("ignore:EnvPool seeds are fixed:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning"),
]


def envpool_of(name, **kwargs):
    envpool = pytest.importorskip("envpool")
    return envpool.make(name, env_type="gymnasium", **kwargs)


def pong_of(library, num_envs):
    """Returns environments whose episodes end after 50 steps."""
    if library == "envpool":
        return envpool_of("Pong-v5", num_envs=num_envs, max_episode_steps=50)
    gym.register_envs(pytest.importorskip("ale_py"))
    return gym.make_vec("ALE/Pong-v5", num_envs=num_envs, max_num_frames_per_episode=200)


def steps_of(env, num_steps):
    stepper, rng = EnvironmentStepper(env), np.random.default_rng(0)
    stepper.reset(0)
    return [stepper.step_at_random(rng) for _ in range(num_steps)]


def test_cartpole_of_envpool_is_that_of_gymnasium():
    steps = steps_of(envpool_of("CartPole-v1", num_envs=5, max_episode_steps=25), 200)
    physics, ends = gym.make("CartPole-v1").unwrapped, []
    length = np.zeros(5, int)
    for step in steps:
        for e in range(5):
            if not step.stepped[e]:
                assert not step.terminated[e]
                assert not step.truncated[e]
                length[e] = 0
                continue
            physics.reset()
            physics.state = step.observation[e]
            after, reward, terminated, *_ = physics.step(int(step.action[e]))
            length[e] += 1
            np.testing.assert_allclose(step.next_observation[e], after, atol=1e-5)
            assert step.reward[e] == reward
            last = length[e] == 25  # where envpool reports a truncation alone
            assert step.terminated[e] == (terminated and not last)
            assert step.truncated[e] == last
            ends.append((bool(step.terminated[e]), bool(step.truncated[e])))
    assert set(ends) == {(False, False), (True, False), (False, True)}


@pytest.mark.parametrize("library", ["envpool", "ale_py"])
def test_frames_of_pong_follow_each_other(library):
    steps = steps_of(pong_of(library, 3), 160)
    pauses = sum(np.count_nonzero(~step.stepped) for step in steps)
    assert pauses == 9  # of three environments, each after three episodes of 50 steps
    for step in steps:
        for e in np.flatnonzero(step.stepped):
            np.testing.assert_array_equal(step.next_observation[e, :3], step.observation[e, 1:])


@pytest.mark.parametrize("library", ["envpool", "ale_py"])
def test_pong_fills_a_buffer_that_stores_each_frame_once(library):
    env = pong_of(library, 2)
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000, frame_stack=4, seed=0)
    collector = keras_dqn.Collector(env, replay, exploration=keras_dqn.Greedy(), seed=0)
    collector.warm_up(300)
    assert len(replay) == 300
    assert collector.episodes == 6
    observation, transition, _ = replay.sample(64, gamma=0.5)
    after = transition["next_observation"]
    np.testing.assert_array_equal(after[:, :3], observation[:, 1:])
    assert set(transition["discount"]) == {0.5}


def test_a_part_of_the_environments_is_refused():
    env = envpool_of("CartPole-v1", num_envs=6, batch_size=2)
    with pytest.raises(ValueError, match=r"`batch_size` equal to `num_envs`\. Received: 6 .* of 2"):
        EnvironmentStepper(env).reset()


def test_cartpole_of_envpool_is_collected_evaluated_and_trained_on():
    env = envpool_of("CartPole-v1", num_envs=4, seed=0)
    replay = keras_dqn.ReplayBuffer.from_env(env, 2_000, seed=0)
    agent = keras_dqn.DQN(keras_dqn.networks.mlp(env.single_observation_space, 2))
    agent.compile(steps_per_execution=16)
    explore = keras_dqn.EpsilonGreedy(0.5)
    test_env = envpool_of("CartPole-v1", num_envs=2, seed=1)
    history = agent.fit(
        replay.dataset(16),
        steps_per_epoch=64,
        callbacks=[
            keras_dqn.CollectTransitions(
                env, replay, exploration=explore, warmup_steps=100, seed=0
            ),
            keras_dqn.SoftTargetUpdate(0.01),
            keras_dqn.EvaluatePolicy(test_env, episodes=4),
        ],
        verbose=0,
    ).history
    assert 160 < history["env_steps"][0] == len(replay) <= 164
    assert history["val_return"][0] >= 8.0


@pytest.mark.filterwarnings("ignore:`.*` is set to None:UserWarning")
@pytest.mark.filterwarnings("ignore:env_spec is None:UserWarning")
def test_episodes_of_envpool_are_recorded(tmp_path, monkeypatch):
    pytest.importorskip("minari")
    from keras_dqn.integrations.minari import load, record

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = envpool_of("CartPole-v1", num_envs=2, seed=0)
    model = keras_dqn.networks.mlp(env.single_observation_space, 2)
    dataset = record(model, env, "own/pool-v0", episodes=4)
    assert len(load(dataset)) == dataset.total_steps > 20
