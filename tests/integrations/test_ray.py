"""Collection on Ray: counts, replay ratio, lag, priorities, errors, and what a worker needs."""

import contextlib
import os
import re
import signal
import sys
import time

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn

ray = pytest.importorskip("ray")
import ray_runs  # noqa: E402
from ray_runs import check_numbers, make_run, new_agent, numbered, train  # noqa: E402

from keras_dqn.integrations import ray_workers  # noqa: E402
from keras_dqn.integrations.ray import RayCollectTransitions, ape_x_epsilons  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.cloudpickle.register_pickle_by_value(ray_runs)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.shutdown()  # of an example that ran in this process before
    ray.init("local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield
    ray.shutdown()


def test_the_epsilons_of_ape_x():
    assert ape_x_epsilons(1) == [0.4]
    assert np.allclose(ape_x_epsilons(2), [0.4, 0.4**8])
    assert np.allclose(ape_x_epsilons(4, epsilon=0.5, alpha=3), [0.5, 0.5**2, 0.5**3, 0.5**4])


@pytest.mark.parametrize(
    ("workers", "envs", "mode"),
    [
        (1, None, None),
        pytest.param(2, 1, "NextStep", marks=pytest.mark.hard),
        (2, 3, "SameStep"),
        pytest.param(3, 2, "Disabled", marks=pytest.mark.hard),
    ],
)
def test_counts_add_up_and_max_env_steps_is_exact(workers, envs, mode):
    make_env = numbered() if envs is None else numbered(envs, mode)
    replay, collect = make_run(make_env, workers=workers, envs=envs or 1, max_env_steps=203)
    agent = new_agent()
    history = train(agent, replay, collect, epochs=10)
    collect.close()
    assert collect.env_steps == 203 == history.history["env_steps"][-1]
    episodes = check_numbers(replay, 203)
    ended = [steps for steps in episodes.values() if steps[-1][1] in (1, 2)]
    assert collect.episodes == len(ended)
    updates = 203 - collect.warmup_steps
    extra = workers * (envs or 1)  # of the warm-up
    assert updates - extra <= int(agent.update_count.numpy()) <= updates


def test_the_replay_ratio_is_held():
    """While `fit` trains, so many granted steps at most are missing in the buffer."""
    replay, collect = make_run(numbered(), block_size=4, env_steps_per_update=2, warmup_steps=30)
    agent, seen = new_agent(), []

    def note(batch, logs):
        granted = 30 + 2 * (agent.update_count.numpy() + 8)
        seen.append((granted - len(replay), len(replay) - collect.env_steps))

    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=note)
    train(agent, replay, collect, epochs=3, callbacks=[watch])
    missing, difference = np.transpose(seen)
    assert max(missing) <= (2 * 2 + 1) * 4
    assert min(missing) >= -2  # what the warm-up took too much
    assert not any(difference)
    assert 30 + 2 * 120 <= collect.env_steps <= 32 + 2 * 120
    check_numbers(replay, collect.env_steps)


def test_a_fast_learner_waits_and_a_slow_one_is_waited_for():
    """No queue grows: one worker never has more than two orders."""
    replay, collect = make_run(numbered(seconds=0.01), workers=1, block_size=4, warmup_steps=4)
    agent, orders, steps = new_agent(), [], []

    def note(batch, logs):
        orders.append(collect.collector._workers.num_orders(0))
        steps.append(collect.env_steps)
        if batch == 32:  # a slow learner
            time.sleep(0.5)
            steps.append(collect.env_steps)

    watch = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    began = time.monotonic()
    train(agent, replay, collect, epochs=1, steps=64, callbacks=[watch])
    assert max(orders) <= 2
    assert time.monotonic() - began > 60 * 0.01  # a fast one
    assert collect.env_steps == 4 + 64
    assert steps == sorted(steps)


def test_the_lag_of_the_policy_is_bounded_and_in_the_logs():
    replay, collect = make_run(
        numbered(), block_size=4, policy_update_freq=16, exploration=keras_dqn.EpsilonGreedy(0.25)
    )
    history = train(new_agent(), replay, collect, epochs=4).history
    assert all(0 < lag <= 4 * (16 + 8 + (2 * 2 + 1) * 4) + 8 for lag in history["policy_lag"])
    assert max(history["policy_lag"]) > 16  # weights are kept for so many updates
    assert history["worker_restarts"] == [0] * 4
    assert history["epsilon"] == [0.25] * 4


def test_a_slow_worker_is_awaited_before_its_weights_are_too_old(tmp_path):
    def make_env():  # the second one is slow
        path = tmp_path / "made"
        slow = path.exists()
        path.touch()
        return ray_runs.Numbered(seconds=0.01 if slow else 0.0)

    replay, collect = make_run(numbered(), block_size=4, max_policy_lag=24, warmup_steps=8)
    collect.collector.plan.make_env = make_env
    history = train(new_agent(), replay, collect, epochs=2, steps=80).history
    assert all(16 < lag <= 24 + 8 for lag in history["policy_lag"])
    check_numbers(replay, collect.env_steps)


def test_each_worker_has_its_own_epsilon():
    replay, collect = make_run(numbered(), workers=3, warmup_steps=30)
    history = train(new_agent(), replay, collect, epochs=2, steps=80).history
    assert np.isclose(history["epsilon"][-1], np.mean(ape_x_epsilons(3)))


def test_a_schedule_counts_the_steps_of_all_workers():
    rule = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.0, 80))
    replay, collect = make_run(numbered(), exploration=rule, warmup_steps=10)
    agent, source = new_agent(), collect.collector
    history = train(agent, replay, collect, epochs=4).history
    assert 0.0 < history["epsilon"][0] < 1.0
    assert source.env_steps >= 80
    source.collect(agent.policy(), source.plan.num_workers * source.plan.block_size)
    source.receive_all()  # a block of each worker
    source.close()
    assert source.logs["epsilon"] == 0.0


@pytest.mark.parametrize(
    ("envs", "mode", "n_step"),
    [
        (None, None, 3),
        (2, "SameStep", 1),
        pytest.param(None, None, 1, marks=pytest.mark.hard),
        pytest.param(2, "SameStep", 3, marks=pytest.mark.hard),
    ],
)
def test_first_priorities_are_those_of_the_agent(n_step, envs, mode):
    """With a learning rate of 0 the worker's weights are the agent's, and the target's equal."""
    make_env = numbered() if envs is None else numbered(envs, mode)
    kind = keras_dqn.PrioritizedReplayBuffer
    replay, collect = make_run(make_env, envs=envs or 1, kind=kind, warmup_steps=10)
    agent = new_agent(rate=0.0)
    agent.target_network.set_weights(agent.network.get_weights())
    update, replay.update_priorities = replay.update_priorities, lambda keys, td_error: None
    train(agent, replay, collect, n_step=n_step, epochs=2, steps=64)
    replay.update_priorities = update
    rings, rated = replay._rings, 0
    values = replay._sampler.priorities.tree().leaves ** (1 / replay.alpha)
    replay._sampler.take_new_rows()
    for env, head in enumerate(rings.heads_list):
        rows = np.arange(head)
        envs_of_rows = np.full(head, env)
        window = rings.windows(envs_of_rows, rows, 0.9, n_step)
        for row in rows[window.complete]:
            slot = env * rings.ring_size + row
            value = values[slot]
            if value == 1.0:  # as it entered: collected at random
                continue
            one = np.array([row])
            batch = replay._gather(
                np.array([env]), one, rings.windows(np.array([env]), one, 0.9, n_step), 1
            )
            assert np.isclose(value, np.abs(agent.td_errors(batch))[0] + 1e-6, rtol=1e-4)
            rated += 1
    assert rated > 0.7 * (len(replay) - 10)


def test_masks_and_branches():
    """No worker takes a forbidden choice; first priorities are sums over branches."""
    kind = keras_dqn.PrioritizedReplayBuffer
    replay, collect = make_run(ray_runs.masked_branches, kind=kind, warmup_steps=20)
    keras.utils.set_random_seed(0)
    network = keras_dqn.networks.mlp(gym.spaces.Box(-1, 1, (3,)), (2, 3), hidden_units=(8,))
    agent = keras_dqn.DQN(network, action_mask="action_mask")
    agent.compile(keras.optimizers.SGD(0.0), steps_per_execution=8)
    update, replay.update_priorities = replay.update_priorities, lambda keys, td_error: None
    train(agent, replay, collect, epochs=2, steps=64)
    collect.close()
    replay.update_priorities = update
    assert len(replay) == collect.env_steps > 120
    entered = replay._sampler.priorities.tree().leaves ** (1 / replay.alpha)
    observation, transition, _ = replay.sample(200, gamma=0.9)
    action = transition["action"][..., None]
    assert np.take_along_axis(observation["action_mask"], action, axis=-1).all()
    row, env = np.divmod(transition["key"], 2)
    entered = entered[replay._rings.slots(env, row)]
    target = np.asarray(agent.compute_target(observation, transition))
    taken = np.take_along_axis(agent(observation).numpy(), action, axis=-1)[..., 0]
    rated = entered != 1.0  # as it entered: collected at random
    assert rated.mean() > 0.5
    expected = np.abs(target - taken).sum(axis=1) + 1e-6
    np.testing.assert_allclose(entered[rated], expected[rated], rtol=1e-4)


def test_a_worker_needs_neither_keras_nor_much_memory():
    replay, collect = make_run(numbered(), exploration=keras_dqn.EpsilonGreedy(0.1))
    train(new_agent(), replay, collect)
    for worker in range(2):
        process = collect.collector._workers.process(worker)
        assert not process["keras"]
        assert process["pid"] != os.getpid()
        with open(f"/proc/{process['pid']}/status") as file:
            resident = int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) / 1024
        assert resident < 150


@pytest.mark.hard
def test_a_worker_whose_environment_uses_the_package_loads_it():
    def make_env():
        import keras_dqn as package

        assert package.networks.mlp
        assert package.__version__
        return ray_runs.Numbered()

    replay, collect = make_run(numbered(), workers=1)
    collect.collector.plan.make_env = make_env
    train(new_agent(), replay, collect, epochs=1)
    assert collect.collector._workers.process(0)["keras"]
    check_numbers(replay, collect.env_steps)


def test_a_network_that_needs_keras_says_so():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="float16")])
    agent = keras_dqn.DQN(network)
    agent.compile(keras.optimizers.SGD(1e-3), steps_per_execution=8)
    replay, collect = make_run(lambda: gym.make("CartPole-v1"), workers=1)
    with pytest.warns(UserWarning, match=r"Each worker loads Keras and TensorFlow.*float16"):
        train(agent, replay, collect, epochs=1)
    assert collect.collector._workers.process(0)["keras"]
    assert len(replay) == collect.env_steps == 40 + 40


def test_noise_in_the_network_is_drawn_by_the_worker():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras_dqn.layers.NoisyDense(3)]
    agent = keras_dqn.DQN(keras.Sequential(layers))
    agent.compile(keras.optimizers.SGD(1e-3), steps_per_execution=8)
    replay, collect = make_run(numbered(), exploration=keras_dqn.NoisyGreedy(), workers=1)
    train(agent, replay, collect, epochs=1)
    check_numbers(replay, collect.env_steps)


def kill_workers(collect, times):
    """A callback that kills a worker by SIGKILL, again and again."""
    killed = []

    def kill(batch, logs):
        if len(killed) < times and collect.collector.num_updates > 16 * len(killed):
            with contextlib.suppress(ray.exceptions.RayActorError):  # killed before, not noticed
                process = collect.collector._workers.process(len(killed) % collect.num_workers)
                os.kill(process["pid"], signal.SIGKILL)
                killed.append(process["pid"])

    return killed, keras.callbacks.LambdaCallback(on_train_batch_end=kill)


def check_kills(times, epochs, **kwargs):
    replay, collect = make_run(numbered(**kwargs), envs=kwargs.get("num_envs", 1), block_size=16)
    killed, killer = kill_workers(collect, times)
    # The last callback asks all workers: one without an order can have died unnoticed.
    ask = keras.callbacks.LambdaCallback(on_train_end=lambda logs: collect.get_state())
    with pytest.warns(UserWarning, match="A worker has died, and a new one begins in its place"):
        train(new_agent(), replay, collect, epochs=epochs, callbacks=[killer, ask])
    assert len(killed) == times == collect.collector.logs["worker_restarts"]
    check_numbers(replay, collect.env_steps)
    train(new_agent(), replay, collect, epochs=2)  # all new workers have begun then
    epochs += 2
    episodes = check_numbers(replay, collect.env_steps)
    assert len({episode[0] for episode in episodes}) > times  # environments of so many processes
    granted = collect.collector.granted_steps
    assert 40 + 40 * epochs <= granted <= 40 + 40 * epochs + 4
    # Orders of a worker that dies at the end stay granted, for the next `fit`.
    assert 0 <= granted - collect.env_steps <= 2 * 2 * 16
    return collect


def test_killed_workers_are_replaced_and_no_transition_is_lost_or_twice():
    check_kills(2, epochs=2)


@pytest.mark.hard
@pytest.mark.parametrize("kwargs", [{}, {"num_envs": 2, "mode": "SameStep"}])
def test_ten_kills(kwargs):
    collect = check_kills(10, epochs=8, **kwargs)
    print(f"\nten workers killed; {collect.env_steps} steps, each in the buffer once")


def test_a_worker_that_dies_each_time_ends_fit():
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)

    replay, collect = make_run(numbered(), workers=1)
    collect.collector.plan.make_env = dies
    with (
        pytest.warns(UserWarning, match="A worker has died"),
        pytest.raises(RuntimeError, match="died 3 times in a row before it sent a block"),
    ):
        train(new_agent(), replay, collect)


class Faulty(ray_runs.Numbered):
    """Raises an error in its tenth step."""

    def step(self, action):
        if self.step_number == 9:
            raise ArithmeticError("the simulator has no more fuel")
        return super().step(action)


def test_errors_of_an_environment_end_fit():
    replay, collect = make_run(lambda: Faulty(end=0.0), workers=1)
    with pytest.raises(ArithmeticError, match="no more fuel"):
        train(new_agent(), replay, collect)
    other = make_run(lambda: Faulty(), workers=1)[1]
    other.collector.plan.make_env = numbered(3)
    with pytest.raises(
        ValueError, match="`replay` must be made for the environment: its `num_envs`"
    ):
        train(new_agent(), other.replay, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_workers": 3}, "`replay` must have `num_envs = num_workers .*num_workers=3"),
        ({"num_workers": 0}, "`num_workers` must be at least 1"),
        ({"make_env": ray_runs.Numbered()}, "`make_env` must be a function"),
        ({"replay": [1]}, "`replay` must be a ReplayBuffer"),
        ({"exploration": 0.1}, "`exploration` must be an exploration rule, or a list"),
        ({"exploration": [keras_dqn.Greedy()]}, "`exploration` .* Received: 1 rules"),
        ({"block_size": 0}, "`block_size` must be at least 1"),
        ({"max_policy_lag": 0}, "`max_policy_lag` must be at least 1"),
        ({"policy_update_freq": 0.5}, "`policy_update_freq` must be an integer"),
        ({"worker_options": {"max_restarts": 3}}, "`worker_options` must leave to the workers"),
        ({"worker_options": 3}, "`worker_options` must be a dict"),
        ({"warmup_steps": 10**9}, "`warmup_steps` must be between 0 and"),
        ({"max_env_steps": 3}, "`max_env_steps` must be at least"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    replay, _ = make_run(numbered())
    arguments = {"make_env": numbered(), "replay": replay, "num_workers": 2, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        RayCollectTransitions(arguments.pop("make_env"), arguments.pop("replay"), **arguments)


def test_a_second_fit_and_new_workers_go_on_with_the_episodes():
    replay, collect = make_run(numbered(end=0.02), warmup_steps=20)
    agent = new_agent()
    train(agent, replay, collect, epochs=1)
    steps = collect.env_steps
    assert steps == len(replay)  # `fit` has waited for what was under way
    train(agent, replay, collect, epochs=1)
    check_numbers(replay, collect.env_steps)
    assert collect.env_steps == steps + 40


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` as Ctrl-C does, after so many executions."""

    def __init__(self, executions):
        super().__init__()
        self.left = executions

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_fit_after_ctrl_c_takes_what_was_under_way():
    replay, collect = make_run(numbered(seconds=0.002), block_size=16)
    agent = new_agent()
    with pytest.raises(KeyboardInterrupt):
        train(agent, replay, collect, callbacks=[Interrupt(3)])
    under_way = collect.collector.granted_steps - collect.env_steps
    train(agent, replay, collect)
    assert under_way > 0
    assert collect.env_steps >= 40 + 3 * 8 + 2 * 40 - 16
    check_numbers(replay, collect.env_steps)


@pytest.mark.parametrize("at", [pytest.param("finish", marks=pytest.mark.hard), "add_block"])
def test_ctrl_c_while_a_block_is_added_joins_no_two_episodes(at, monkeypatch):
    """The steps of that block are lost; all others are in the buffer, none twice."""
    replay, collect = make_run(numbered(end=0.0), block_size=16)
    agent, calls = new_agent(), []

    def interrupted(original):
        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return call

    if at == "add_block":
        monkeypatch.setattr(replay, "add_block", interrupted(replay.add_block))
    else:
        collect.warm_up()
        workers = collect.collector._workers
        monkeypatch.setattr(workers, "finish", interrupted(workers.finish))
    with pytest.raises(KeyboardInterrupt):
        train(agent, replay, collect)
    train(agent, replay, collect)
    lost = collect.env_steps - len(replay)
    assert lost == (16 if at == "add_block" else 0)
    rings = replay._rings
    for env, head in enumerate(rings.heads_list):
        for row in range(head - 1):
            slot = env * rings.ring_size + row
            before, after = rings.observations[0][slot], rings.observations[0][slot + 1]
            if not rings.flags[slot]:
                assert after[2] == before[2] + 1


class FaultyOnce(ray_runs.Numbered):
    """Raises an error in its tenth step, but not where a file exists."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def step(self, action):
        if self.step_number == 9 and not self.path.exists():
            self.path.touch()
            raise ArithmeticError("the simulator has no more fuel")
        return super().step(action)


def test_a_fit_after_an_error_begins_new_episodes(tmp_path):
    replay, collect = make_run(lambda: FaultyOnce(tmp_path / "failed"))
    agent = new_agent()
    with pytest.raises(ArithmeticError):
        train(agent, replay, collect, epochs=20)
    steps = collect.env_steps
    assert steps == len(replay)
    train(agent, replay, collect)
    assert collect.env_steps > steps
    check_numbers(replay, collect.env_steps)


def test_a_warm_up_after_an_interrupted_one_takes_no_step_twice(monkeypatch):
    replay, collect = make_run(numbered(), warmup_steps=100, max_env_steps=160, block_size=8)
    add_block, calls = replay.add_block, []

    def interrupted(*args):
        add_block(*args)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(replay, "add_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect.warm_up()
    collect.warm_up()
    assert 100 <= collect.env_steps <= 102
    train(new_agent(), replay, collect, epochs=10)
    assert collect.env_steps == len(replay) == 160


def test_an_error_of_an_environment_is_none_of_the_disk(tmp_path):
    """Also if it arrives while a checkpoint waits for the workers."""

    class Resets(ray_runs.Numbered):
        def step(self, action):
            if self.episode > 4:
                time.sleep(0.05)  # so that the blocks are under way when the epoch ends
                raise ConnectionResetError("the simulator is gone")
            return super().step(action)

    replay, collect = make_run(lambda: Resets(), block_size=64, warmup_steps=10)
    checkpoint = keras_dqn.TrainingCheckpoint(tmp_path)
    with (
        pytest.warns(UserWarning, match="order of chance"),
        pytest.raises(ConnectionResetError, match="the simulator is gone"),
    ):
        train(new_agent(), replay, collect, epochs=40, steps=64, callbacks=[checkpoint])


def test_no_episode_is_missing_in_the_means(tmp_path):
    """Blocks also arrive between two epochs, while a checkpoint waits for them."""
    replay, collect = make_run(numbered(), workers=3, block_size=16)
    counted = []
    add_ended = collect.collector.statistics.add_ended
    collect.collector.statistics.add_ended = lambda ended: (
        counted.append(ended.number),
        add_ended(ended),
    )
    ended = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ended.append(collect.collector.statistics.ended)
    )
    checkpoint = keras_dqn.TrainingCheckpoint(tmp_path)
    with pytest.warns(UserWarning, match="order of chance"):
        train(new_agent(), replay, collect, epochs=4, callbacks=[note, checkpoint])
    last = [ended[i].number for i in range(4, len(ended), 5)]  # of each epoch
    late = collect.collector.statistics.ended.number  # after the last epoch
    assert sum(last) + late == sum(counted) == collect.episodes


def test_weights_that_go_back_are_sent_too():
    replay, collect = make_run(numbered(), policy_update_freq=1_000, max_policy_lag=10_000)
    agent = new_agent()
    train(agent, replay, collect)
    shared = collect.collector._workers._policy
    assert shared.version <= 8
    agent.update_count.assign(0)
    shared.version = 80
    train(agent, replay, collect, epochs=1)
    assert shared.version < 80


def test_long_returns_are_rated():
    kind = keras_dqn.PrioritizedReplayBuffer
    replay, collect = make_run(Steady, kind=kind, warmup_steps=150)
    collect.warm_up()  # workers begin before they know the length
    rated, add_block = [], replay.add_block

    def add(block, first_env):
        rated.append(0 if block.rated is None else len(block.rated[0]))
        add_block(block, first_env)

    replay.add_block = add
    train(new_agent(), replay, collect, n_step=30, epochs=4)
    assert sum(rated) > 160 - 2 * 30


def test_each_epoch_has_all_logs():
    rules = [keras_dqn.EpsilonGreedy(0.25), keras_dqn.EpsilonGreedy(0.75)]
    replay, collect = make_run(numbered(), exploration=rules, block_size=64)
    history = train(new_agent(), replay, collect, epochs=3, steps=8).history
    assert history["epsilon"] == [0.5] * 3


def test_without_a_warm_up_the_first_block_is_awaited():
    replay, collect = make_run(numbered(seconds=0.01), warmup_steps=0)
    train(new_agent(), replay, collect, epochs=1)
    assert len(replay) == collect.env_steps == 40


def test_large_weights_go_through_the_store_of_ray():
    keras.utils.set_random_seed(0)
    wide = [keras.layers.Dense(1_100), keras.layers.Dense(1_100), keras.layers.Dense(3)]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((3,)), *wide]))
    agent.compile(keras.optimizers.SGD(0.0), steps_per_execution=8, jit_compile=False)
    replay, collect = make_run(
        numbered(), workers=1, kind=keras_dqn.PrioritizedReplayBuffer, warmup_steps=10
    )
    train(agent, replay, collect, epochs=1)
    (weights,) = collect.collector._workers._policy._weights
    assert isinstance(weights, ray.ObjectRef)
    check_numbers(replay, collect.env_steps)


def test_workers_that_send_nothing_are_looked_for(monkeypatch):
    monkeypatch.setattr(ray_workers, "_PATIENCE", 0.05)
    monkeypatch.setattr(ray_workers, "_SLOW", 0.2)
    replay, collect = make_run(numbered(seconds=0.2), workers=1, warmup_steps=4)
    with pytest.warns(UserWarning, match=r"No worker has sent a block.*1 workers, free in"):
        collect.warm_up()
    assert len(replay) == 4


def test_a_bound_of_the_lag_needs_an_agent():
    _, collect = make_run(numbered(), max_policy_lag=9)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    collect.set_model(model)
    with pytest.raises(ValueError, match="`max_policy_lag` needs a DQN"):
        collect.on_train_begin()


def test_a_worker_without_memory_is_replaced(monkeypatch):
    replay, collect = make_run(numbered(), workers=1)
    agent = new_agent()
    train(agent, replay, collect, epochs=1)
    get, calls = ray.get, []

    def out_of_memory_once(result):
        calls.append(result)
        if len(calls) == 1:
            raise ray.exceptions.OutOfMemoryError("too little memory")
        return get(result)

    monkeypatch.setattr(ray, "get", out_of_memory_once)
    with pytest.warns(UserWarning, match="A worker has died.*too little memory"):
        train(agent, replay, collect, epochs=1)
    check_numbers(replay, collect.env_steps)


class Steady(ray_runs.Numbered):
    """The same after the same `reset(seed)` and actions, also in another process."""

    def __init__(self):
        super().__init__(end=0.02)

    def reset(self, **kwargs):
        super().reset(**kwargs)
        self.episode = self.np_random.random()
        return self._observation(), {}

    def _observation(self):
        return np.array([0.0, self.episode, self.step_number])


def test_a_run_continues_from_a_checkpoint(tmp_path):
    def run(epochs):
        kind = keras_dqn.PrioritizedReplayBuffer
        replay, collect = make_run(Steady, kind=kind, exploration=keras_dqn.EpsilonGreedy(0.5))
        checkpoint = keras_dqn.TrainingCheckpoint(tmp_path)
        with pytest.warns(UserWarning, match="arrive in an order of chance"):
            history = train(new_agent(), replay, collect, epochs=epochs, callbacks=[checkpoint])
        state = collect.get_state()
        collect.close()
        return replay, collect, history, state

    before = run(epochs=2)
    after = run(epochs=4)
    assert after[2].epoch == [0, 1, 2, 3]
    assert after[2].history["env_steps"][:2] == before[2].history["env_steps"]
    assert len(after[0]) == after[1].env_steps == 40 + 40 * 4
    for old, new in zip(before[3]["workers"], after[3]["workers"], strict=True):
        assert new["env_steps"] > old["env_steps"]
        assert new["generator"] != old["generator"]
    check_numbers(after[0], after[1].env_steps)  # no episode begins in its middle


def test_a_checkpoint_of_another_number_of_workers_is_refused():
    _, collect = make_run(numbered())
    state = collect.get_state()
    other = make_run(numbered(), workers=1, envs=2)[1]
    with pytest.raises(ValueError, match=r"`num_workers` must be 2.*Received: num_workers=1"):
        other.set_state(state)
