import csv
import functools
import threading

import gymnasium as gym
import keras
import numpy as np
import pytest
from envs import (
    CountingEnv,
    DictCountingEnv,
    DiscreteCountingEnv,
    PayingResets,
    counting_fns,
    counting_vector,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from keras_dqn import (
    DQN,
    Boltzmann,
    CollectTransitions,
    EpsilonGreedy,
    ExponentialSchedule,
    Greedy,
    LinearSchedule,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SoftTargetUpdate,
)
from keras_dqn.trainers.step_hooks import hooks_of

MODES = [mode.value for mode in AutoresetMode]
EVER_LONGER = 10**6


def always(action, num_actions=3):
    """A network for one-number observations that likes one action best."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(num_actions)])
    network.set_weights([np.zeros((1, num_actions)), np.eye(num_actions)[action]])
    return network


def agent_of(network, steps_per_execution=1, learning_rate=0.0):
    agent = DQN(network)
    agent.compile(
        keras.optimizers.SGD(learning_rate),
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    return agent


@functools.cache
def shared_agent(action, steps_per_execution, start):
    """One for each `start`: an agent keeps that of its first buffer."""
    return agent_of(always(action), steps_per_execution)


def standing_agent(action=2, steps_per_execution=1, start=0):
    """An agent that learns nothing, whose compiled program is shared by the tests."""
    agent = shared_agent(action, steps_per_execution, start)
    agent.update_count.assign(0)  # a new collector of a trained agent would warn
    return agent


def fit(collect, agent=None, updates=8, epochs=1, callbacks=(), verbose=0):
    agent = agent or standing_agent()
    return agent.fit(
        collect.replay.dataset(4, gamma=0.5),
        steps_per_epoch=updates,
        epochs=epochs,
        callbacks=[collect, SoftTargetUpdate(), *callbacks],
        verbose=verbose,
    )


def collector(env, capacity=1_000, exploration=None, warmup_steps=10, **kwargs):
    replay = ReplayBuffer.from_env(env, capacity, seed=0)
    exploration = exploration or EpsilonGreedy(0.5)
    kwargs = {"seed": 0, **kwargs}
    return CollectTransitions(
        env, replay, exploration=exploration, warmup_steps=warmup_steps, **kwargs
    )


def stored(replay):
    """Returns all transitions in the buffer, by drawing far more than it holds."""
    observation, transition, _ = replay.sample(5_000, gamma=0.5)
    observation, after = (
        value["counter"] if isinstance(value, dict) else value
        for value in (observation, transition["next_observation"])
    )
    columns = observation.ravel(), *(transition[k] for k in ("action", "reward", "discount"))
    return {tuple(float(x) for x in row) for row in zip(*columns, after.ravel(), strict=True)}


def happened(env):
    """Returns all transitions that the environments themselves wrote down."""
    envs = env.envs if isinstance(env, gym.vector.VectorEnv) else [env]
    start = int(envs[0].action_space.start)
    return {
        (row.observation, row.action - start, row.reward, discount, row.next_observation)
        for one in envs
        for row in one.rows
        for discount in [0.0 if row.terminated else 0.5]
    }


class BatchLogs(keras.callbacks.Callback):
    """A later callback: keeps what it is told at each batch's end."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs[self.name])


# What is stored


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize("steps_per_execution", [1, 4], ids=["K=1", "K=4"])
@pytest.mark.parametrize("start", [0, 4], ids=["start 0", "start 4"])
@pytest.mark.parametrize("mode", ["single", *MODES])
def test_buffer_holds_exactly_what_happened(mode, start, steps_per_execution, overlap):
    make_env = counting_fns(1, start=start)[0]
    env = make_env() if mode == "single" else counting_vector(mode, start=start)
    collect = collector(env, env_steps_per_update=3, overlap=overlap)
    fit(collect, standing_agent(1, steps_per_execution, start), updates=16)
    assert stored(collect.replay) == happened(env)
    assert len(happened(env)) == len(collect.replay) == collect.env_steps >= 10 + 45


def one_number_network(observation_space):
    if isinstance(observation_space, gym.spaces.Discrete):
        inputs = keras.Input((), dtype="int32")
        x = keras.layers.Rescaling(1e-3)(keras.layers.Reshape((1,))(inputs))
        return keras.Model(inputs, keras.layers.Dense(3)(x))
    counter, minus = keras.Input((1,), name="counter"), keras.Input((1,), name="minus")
    x = keras.layers.Concatenate()([counter, minus])
    return keras.Model(
        {"counter": counter, "deep": {"minus": minus}},
        keras.layers.Dense(3, kernel_initializer="zeros")(x),
    )


@pytest.mark.parametrize("cls", [DictCountingEnv, DiscreteCountingEnv])
@pytest.mark.parametrize("mode", ["single", "SameStep"])
def test_dict_and_discrete_observations(mode, cls):
    env = counting_fns(1, cls=cls)[0]() if mode == "single" else counting_vector(mode, cls=cls)
    collect = collector(env)
    network = one_number_network(collect.replay.observation_space)
    fit(collect, agent_of(network, steps_per_execution=4), updates=24)
    assert stored(collect.replay) == happened(env)


def test_actions_come_from_the_network_as_it_is_now():
    env = CountingEnv((EVER_LONGER,))
    collect = collector(env, exploration=Greedy(), warmup_steps=4)
    agent = agent_of(always(2))
    switch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: agent.network.set_weights(
            [np.zeros((1, 3)), np.eye(3)[batch % 3]]
        )
    )
    fit(collect, agent, updates=6, callbacks=[switch])
    # The first is the network's own favourite; then each follows the weights just set.
    assert [row.action for row in env.rows[4:]] == [2, 0, 1, 2, 0, 1]


def test_unbuilt_network_is_collected_with():
    collect = collector(CountingEnv())
    fit(collect, agent_of(keras.Sequential([keras.layers.Dense(3)])))
    assert collect.env_steps == 18


# Counts


@pytest.mark.parametrize(
    ("num_envs", "rate", "expected"),
    [
        (1, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (1, 0.25, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]),
        (1, 2.5, [2, 5, 7, 10, 12, 15, 17, 20, 22, 25]),
        (8, 1, [0, 0, 0, 0, 0, 0, 0, 8, 8, 8]),
        (8, 4, [0, 8, 8, 16, 16, 24, 24, 32, 32, 40]),
    ],
    ids=["E=1", "one in four", "fractional", "E=8", "E=8, four an update"],
)
def test_credit_accumulates(num_envs, rate, expected):
    env = CountingEnv() if num_envs == 1 else counting_vector("SameStep", num_envs)
    collect = collector(env, env_steps_per_update=rate, warmup_steps=8)
    env_steps = BatchLogs("env_steps")
    fit(collect, updates=10, callbacks=[env_steps])
    assert env_steps.values == [8 + steps for steps in expected]


def test_credit_is_that_of_whole_executions_and_outlives_fit():
    collect = collector(counting_vector("SameStep", 3), warmup_steps=6)
    env_steps = BatchLogs("env_steps")
    agent = standing_agent(2, steps_per_execution=4)
    for _ in range(2):
        fit(collect, agent, updates=8, callbacks=[env_steps])
    # Entitled to 4, 8, 12, 16 transitions; three at a time make 3, 6, 12, 15.
    assert env_steps.values == [9, 12, 18, 21]


BUDGETS = {  # environments, K, steps an update, warm-up, budget: updates (budget - warm-up) / rate
    "E=1": (1, 4, 1, 10, 37, 27, "NextStep", False),
    "E=8, K=1, NextStep": (8, 1, 1, 16, 61, 45, "NextStep", False),
    "E=8, K=16, NextStep": (8, 16, 1, 16, 61, 45, "NextStep", False),
    "E=8, K=16, SameStep": (8, 16, 1, 16, 61, 45, "SameStep", False),
    "E=8, K=16, Disabled, overlap": (8, 16, 1, 16, 61, 45, "Disabled", True),
    "E=3, one in two, overlap": (3, 4, 2, 9, 50, 20, "NextStep", True),
    "E=3, two an update": (3, 4, 0.5, 9, 50, 82, "SameStep", False),
}


@pytest.mark.parametrize(
    ("num_envs", "k", "rate", "warmup", "budget", "updates", "mode", "overlap"),
    BUDGETS.values(),
    ids=BUDGETS,
)
def test_a_budget_of_environment_steps_is_met_exactly(
    num_envs, k, rate, warmup, budget, updates, mode, overlap
):
    env = CountingEnv() if num_envs == 1 else counting_vector(mode, num_envs)
    replay = ReplayBuffer.from_env(env, capacity=200, seed=0)
    collect = CollectTransitions(
        env,
        replay,
        exploration=Greedy(),
        env_steps_per_update=rate,
        warmup_steps=warmup,
        max_env_steps=budget,
        overlap=overlap,
    )
    agent = agent_of(always(2), steps_per_execution=k)
    logs = fit(collect, agent, updates=10, epochs=100).history
    assert collect.env_steps == budget
    assert len(replay) == budget
    # The warm-up of a vector environment may take some steps more, and updates are fewer by them.
    assert updates - num_envs / rate < int(agent.update_count) <= updates
    assert len(logs["env_steps"]) == -(-int(agent.update_count) // 10)
    assert logs["env_steps"][-1] == budget
    with pytest.raises(ValueError, match="`max_env_steps` must allow at least one update"):
        fit(collect, agent)


@pytest.mark.parametrize(("first", "updates"), [(True, 21), (False, 29)])
def test_the_budget_of_one_of_two_collectors_ends_training(first, updates):
    """The smaller number of updates counts, whichever collector is asked last.

    The collector that comes first takes the 8 steps of the warm-up.
    """
    env = CountingEnv()
    replay = ReplayBuffer.from_env(env, capacity=500, seed=0)
    limited = CollectTransitions(
        env, replay, exploration=Greedy(), warmup_steps=8, max_env_steps=29
    )
    other = CollectTransitions(CountingEnv(), replay, exploration=Greedy(), warmup_steps=8)
    agent = agent_of(always(2), steps_per_execution=8)
    callbacks = [limited, other] if first else [other, limited]
    callbacks.append(SoftTargetUpdate())
    agent.fit(replay.dataset(4), epochs=9, steps_per_epoch=64, callbacks=callbacks, verbose=0)
    assert (int(agent.update_count), limited.env_steps) == (updates, 29)


def test_rows_that_a_budget_drops_leave_no_half_transition():
    """The counting environments number their steps: a window never spans a dropped one."""
    env = SyncVectorEnv([lambda: CountingEnv((EVER_LONGER,))] * 4)
    replay = ReplayBuffer.from_env(env, capacity=200, seed=0)
    collect = CollectTransitions(
        env, replay, exploration=Greedy(), warmup_steps=8, max_env_steps=21
    )
    agent = agent_of(always(2))
    fit(collect, agent, updates=100)
    assert collect.env_steps == 21  # 5 vector steps, and one environment of the sixth
    collect.max_env_steps = 61
    fit(collect, agent, updates=100)
    observation, transition, _ = replay.sample(500, gamma=1.0, n_step=2)
    steps = transition["next_observation"] - observation
    assert set(np.unique(steps)) <= {1.0, 2.0}
    cut = observation[steps == 1.0]
    assert set(cut) == {4.0}  # the last one before the row that was dropped


def test_autoreset_rows_are_no_steps():
    env = counting_vector("NextStep", 1)
    collect = collector(env)
    env_steps = BatchLogs("env_steps")
    fit(collect, updates=20, callbacks=[env_steps])
    assert env_steps.values == list(range(11, 31))
    assert len(env.envs[0].rows) == 30


# Warm-up


@pytest.mark.parametrize("mode", ["single", *MODES])
def test_warm_up_fills_the_buffer_at_random(mode):
    env = counting_fns(1)[0]() if mode == "single" else counting_vector(mode)
    collect = collector(env, warmup_steps=300)
    collect.warm_up()
    assert 300 <= len(collect.replay) == collect.env_steps < 303
    actions = [int(action) for _, action, *_ in happened(env)]
    np.testing.assert_allclose(np.bincount(actions) / len(actions), 1 / 3, atol=0.1)
    collect.warm_up()
    assert collect.env_steps < 303


def test_fit_warms_up_first_without_asking_the_network():
    env = CountingEnv((EVER_LONGER,))
    collect = collector(env, exploration=Greedy(), warmup_steps=30)
    fit(collect)
    assert {row.action for row in env.rows[:30]} == {0, 1, 2}
    assert [row.action for row in env.rows[30:]] == [2] * 8


def test_what_the_buffer_holds_already_counts():
    env = CountingEnv()
    first = collector(env, warmup_steps=20)
    first.warm_up()
    second = CollectTransitions(env, first.replay, exploration=Greedy(), warmup_steps=25, seed=1)
    second.warm_up()
    assert second.env_steps == 5


def test_full_buffer_that_drops_rows_is_not_warmed_up_again():
    # Each transition takes two rows here, so that the buffer never holds `warmup_steps` of them.
    collect = collector(CountingEnv((1,)), capacity=20, warmup_steps=20)
    collect.warm_up()
    collect.warm_up()
    assert collect.env_steps == 20


# A second fit


def test_second_fit_continues_the_running_episode():
    env = CountingEnv((EVER_LONGER,))
    collect = collector(env, warmup_steps=5)
    for _ in range(2):
        fit(collect)
    assert env.seeds == [0]
    assert [row.observation for row in env.rows] == list(range(21))
    assert stored(collect.replay) == happened(env)


def test_episode_that_spans_two_fits_is_counted_whole():
    collect = collector(CountingEnv((12, EVER_LONGER)), exploration=Greedy(), warmup_steps=4)
    assert "episode_length" not in fit(collect, updates=4).history
    assert fit(collect, updates=4).history["episode_length"] == [12]


# Schedules


class Recorded:
    """A schedule that keeps the counts at which it was read."""

    def __init__(self, unit="steps"):
        self.unit = unit
        self.counts = []

    def __call__(self, count):
        self.counts.append(count)
        return 0.5


@pytest.mark.parametrize(
    ("unit", "expected"),
    # Read at construction, then before each execution of 4 updates; episodes last 2 steps.
    [("steps", [0, 10, 14, 18]), ("episodes", [0, 5, 7, 9])],
)
def test_schedule_is_read_once_per_execution(unit, expected):
    schedule = Recorded(unit)
    collect = collector(CountingEnv((2,)), exploration=EpsilonGreedy(schedule))
    fit(collect, standing_agent(2, steps_per_execution=4), updates=12)
    assert schedule.counts == expected


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LinearSchedule(1.0, 0.0, 100), [0.83, 0.75]),
        (keras.optimizers.schedules.PolynomialDecay(1.0, 100, 0.0), [0.83, 0.75]),
        (ExponentialSchedule(1.0, 0.5, unit="episodes"), [0.5**8, 0.5**12]),
        (0.25, [0.25, 0.25]),
    ],
    ids=["linear", "keras", "episodes", "number"],
)
def test_epsilon_in_the_history_is_the_last_one_used(schedule, expected):
    # The last of 8 updates of each epoch begins after 10 + 7 and 10 + 15 steps, 2 an episode.
    collect = collector(CountingEnv((2,)), exploration=EpsilonGreedy(schedule))
    assert fit(collect, epochs=2).history["epsilon"] == pytest.approx(expected)


def test_epsilon_decides_how_often_the_network_is_asked():
    env = counting_vector("SameStep", 8)
    collect = collector(env, warmup_steps=8, env_steps_per_update=80)
    fit(collect, updates=10)
    # One row of eight per vector step: the episodes' ends take no time in this mode.
    actions = np.array([[row.action for row in one.rows[1:]] for one in env.envs])
    # Greedy is 2: with probability 1/2 + 1/2 * 1/3. Eight independent coins a vector step: their
    # sum has variance 8 * 2/3 * 1/3 = 1.78, one coin for all would make it about 12.
    assert actions.shape == (8, 100)
    assert (actions == 2).mean() == pytest.approx(2 / 3, abs=0.07)
    assert (actions == 2).sum(axis=0).var() == pytest.approx(16 / 9, rel=0.5)


# Logs


def test_logs_are_means_over_the_episodes_of_the_epoch():
    env = CountingEnv((2, 2, 1, 3, 4, 4))
    collect = collector(env, exploration=Greedy(), warmup_steps=4)
    history = fit(collect, updates=4, epochs=3).history
    # Warm-up plays 2, 2. Then the epochs play (1, 3), (4), (4); each step pays 21.
    assert history["episode_length"] == [2, 4, 4]
    assert history["episode_return"] == [42, 84, 84]
    assert history["env_steps"] == [8, 12, 16]


def test_last_known_means_stay_while_no_episode_ends():
    collect = collector(CountingEnv((4, EVER_LONGER)), exploration=Greedy(), warmup_steps=4)
    assert fit(collect, updates=4, epochs=2).history["episode_length"] == [4, 4]


def test_means_are_absent_before_the_first_end():
    """After one NaN the `best` of EarlyStopping and ModelCheckpoint would stay NaN for ever."""
    collect = collector(CountingEnv((EVER_LONGER,)), warmup_steps=4)
    history = fit(collect, updates=4, callbacks=[keras.callbacks.TerminateOnNaN()]).history
    assert not {"episode_return", "episode_length"} & history.keys()
    assert len(history["env_steps"]) == 1


@pytest.mark.parametrize("mode", [*MODES, "NextStep that pays for resets"])
def test_means_of_a_vector_environment(mode):
    mode, *pays = mode.split(maxsplit=1)
    env = counting_vector(mode, vector_cls=PayingResets if pays else SyncVectorEnv)
    collect = collector(env, warmup_steps=0)
    collect.replay.add(*blank_rows(3))  # something to draw before the first step
    logs = fit(collect, updates=60).history
    episodes = [rows for one in env.envs for rows in split_episodes(one.rows)]
    returns = [sum(row.reward for row in rows) for rows in episodes]
    assert logs["episode_return"] == [pytest.approx(np.mean(returns))]
    assert logs["episode_length"] == [pytest.approx(np.mean([len(rows) for rows in episodes]))]
    assert collect.episodes == len(episodes)


def blank_rows(num_envs):
    zeros, ends = np.zeros(num_envs), np.ones(num_envs, bool)
    return zeros[:, None], zeros.astype(int), zeros, ends, ends, zeros[:, None]


def split_episodes(rows):
    """Returns the finished episodes among an environment's transitions."""
    ends = [i + 1 for i, row in enumerate(rows) if row.terminated or row.truncated]
    return [rows[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def test_logs_reach_later_callbacks_and_the_progress_bar(tmp_path, capsys):
    collect = collector(CountingEnv((2,)), exploration=EpsilonGreedy(0.0), warmup_steps=4)
    path = tmp_path / "log.csv"
    returns = BatchLogs("episode_return")
    callbacks = [returns, keras.callbacks.CSVLogger(str(path))]
    fit(collect, updates=4, epochs=2, callbacks=callbacks, verbose=2)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = ("episode_return", "episode_length", "env_steps", "epsilon")
    assert [[float(row[name]) for name in names] for row in rows] == [[42, 2, 8, 0], [42, 2, 12, 0]]
    # After the first update of an epoch its first episode still runs.
    assert len(returns.values) == 8
    assert returns.values[1:] == [42.0] * 7
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in names)
    assert "episode_return: 42.0" in printed


def test_boltzmann_logs_its_temperature():
    collect = collector(CountingEnv(), exploration=Boltzmann(2.0))
    history = fit(collect).history
    assert history["temperature"] == [2.0]
    assert "epsilon" not in history


def test_early_stopping_on_the_episode_return():
    collect = collector(CountingEnv((2,)), exploration=Greedy())
    stop = keras.callbacks.EarlyStopping("episode_return", mode="max", patience=1)
    assert len(fit(collect, epochs=5, callbacks=[stop]).epoch) == 2


# Order, seeds


class EventReplay(ReplayBuffer):
    """Writes down each `add` and `sample` with the number of updates made so far."""

    def begin(self, agent):
        self.agent = agent
        self.events, self.sizes, self.threads = [], [], []

    def add(self, *args, **kwargs):
        self.events.append(("collect", int(self.agent.update_count)))
        super().add(*args, **kwargs)

    def sample(self, batch_size, **kwargs):
        self.events.append(
            (f"sample {kwargs['num_batches']} x {batch_size}", int(self.agent.update_count))
        )
        self.sizes.append(len(self))
        self.threads.append(threading.current_thread().name)
        return super().sample(batch_size, **kwargs)


def test_order_of_events():
    env = CountingEnv()
    agent = agent_of(always(2), steps_per_execution=2)
    replay = EventReplay.from_env(env, 100)
    replay.begin(agent)
    collect = CollectTransitions(env, replay, exploration=Greedy(), warmup_steps=3)
    evaluate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: replay.events.append(("epoch", int(agent.update_count)))
    )
    fit(collect, agent, updates=4, epochs=2, callbacks=[evaluate])

    def execution(count):
        return [("collect", count), ("collect", count), ("sample 2 x 4", count)]

    assert replay.events == [
        *[("collect", 0)] * 3,  # the warm-up
        *execution(0),
        *execution(2),
        ("epoch", 4),
        *execution(4),
        *execution(6),
        ("epoch", 8),
    ]


def test_order_of_events_with_overlap():
    env = CountingEnv()
    agent = agent_of(always(2), steps_per_execution=2)
    replay = EventReplay.from_env(env, 100)
    replay.begin(agent)
    collect = CollectTransitions(env, replay, exploration=Greedy(), warmup_steps=3, overlap=True)
    held = []
    evaluate = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: held.append((len(replay), logs["env_steps"]))
    )
    fit(collect, agent, updates=4, epochs=2, callbacks=[evaluate])
    # The next batches are drawn beside the program, after the steps; not beyond an epoch.
    names = [name for name, _ in replay.events[3:]]
    assert names == ["sample 2 x 4", "collect", "collect"] * 4
    assert replay.sizes == [3, 5, 7, 9]
    main = threading.main_thread().name
    assert [name == main for name in replay.threads] == [True, False, True, False]
    assert held == [(5, 5), (7, 7), (9, 9), (11, 11)]


@pytest.mark.parametrize(
    ("updates", "limit", "expected"),
    [(7, None, [4, 3]), (9, None, [4, 4, 1]), (4, None, [4]), (9, 26, [4, 2])],
)
def test_no_batch_is_drawn_ahead_in_vain(updates, limit, expected):
    env = CountingEnv()
    agent = agent_of(always(2), steps_per_execution=4)
    replay = EventReplay.from_env(env, 100)
    replay.begin(agent)
    collect = CollectTransitions(
        env, replay, exploration=Greedy(), warmup_steps=20, max_env_steps=limit, overlap=True
    )
    fit(collect, agent, updates=updates)
    drawn = [name for name, _ in replay.events if name.startswith("sample")]
    assert drawn == [f"sample {n} x 4" for n in expected]


def test_a_stack_of_an_interrupted_fit_is_not_used():
    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    env = CountingEnv()
    agent = agent_of(always(2), steps_per_execution=4)
    replay = EventReplay.from_env(env, 100)
    replay.begin(agent)
    collect = CollectTransitions(env, replay, exploration=Greedy(), warmup_steps=20, overlap=True)
    with pytest.raises(KeyboardInterrupt):
        fit(collect, agent, updates=8, callbacks=[Interrupts()])
    assert replay.sizes == [20, 24]
    fit(collect, agent, updates=4)
    assert replay.sizes == [20, 24, 24]


def test_rows_drawn_ahead_are_those_that_would_have_been_drawn():
    class Threads(ReplayBuffer):
        def sample(self, *args, **kwargs):
            threads.add(threading.current_thread() is threading.main_thread())
            return super().sample(*args, **kwargs)

    weights = []
    for ahead in (True, False):
        threads = set()
        keras.utils.set_random_seed(1)
        env = gym.make("CartPole-v1")
        replay = Threads.from_env(env, 1_000, seed=2)
        explore = EpsilonGreedy(0.5)
        collect = CollectTransitions(
            env, replay, exploration=explore, seed=3, warmup_steps=20, overlap=True
        )
        agent, start = learning_agent()
        agent.set_weights(start)
        allow = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs, agent=agent, ahead=ahead: setattr(
                hooks_of(agent), "draws_ahead", ahead
            )
        )
        fit(collect, agent, updates=24, callbacks=[allow])
        weights.append(agent.get_weights())
        assert threads == ({True, False} if ahead else {True})
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(weights[0][0], start[0])


@pytest.mark.parametrize("overlap", [False, True])
def test_nothing_is_drawn_ahead_for_other_functions_or_two_collectors(overlap):
    agent = agent_of(always(2), steps_per_execution=4)
    replay = EventReplay.from_env(counting_vector(MODES[0]), 100)
    replay.begin(agent)
    collects = [
        CollectTransitions(
            counting_vector(MODES[0]),
            replay,
            exploration=Greedy(),
            warmup_steps=20,
            overlap=overlap and one,
        )
        for one in ((True, False) if overlap else (True,))
    ]
    beside = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: None if overlap else agent.run_alongside(lambda: None)
    )
    fit(collects[0], agent, updates=16, callbacks=[*collects[1:], beside])
    assert set(replay.threads) == {threading.main_thread().name}


def test_priorities_are_one_execution_older_with_overlap():
    class Prioritized(PrioritizedReplayBuffer):
        def sample(self, batch_size, **kwargs):
            events.append("sample")
            return super().sample(batch_size, **kwargs)

        def update_priorities(self, keys, td_error):
            events.append("feedback")
            super().update_priorities(keys, td_error)

    orders = {}
    for overlap in (False, True):
        events = []
        env = CountingEnv()
        replay = Prioritized.from_env(env, 100)
        collect = CollectTransitions(
            env, replay, exploration=Greedy(), warmup_steps=20, overlap=overlap
        )
        fit(collect, agent_of(always(2), steps_per_execution=2), updates=6)
        orders[overlap] = events
    assert orders[False] == ["sample", "feedback"] * 3
    assert orders[True] == ["sample", "sample", "feedback", "sample", "feedback", "feedback"]


def test_overlap_acts_with_the_weights_from_before_the_execution():
    collected = []
    for overlap in (False, True):
        network = always(0)
        agent = agent_of(network, steps_per_execution=2)
        collect = collector(CountingEnv(), exploration=Greedy(), overlap=overlap)
        prefer = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, network=network: network.set_weights(
                always((batch // 2 + 1) % 3).get_weights()
            )
        )
        fit(collect, agent, updates=6, callbacks=[prefer])
        collected.append(sorted(stored(collect.replay)))
    assert collected[0] == collected[1]
    actions = [row[1] for row in collected[0][10:]]
    assert actions == [0, 0, 1, 1, 2, 2]


def test_overlap_needs_a_model_that_can():
    env = CountingEnv()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`overlap` needs a DQN\. Received: model=<Sequential"):
        model.fit(
            np.zeros((4, 1)), np.zeros((4, 3)), callbacks=[collector(env, overlap=True)], verbose=0
        )
    assert not env.rows


@functools.cache
def learning_agent():
    """An agent for CartPole, and the weights with which each run begins."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    agent = agent_of(network, steps_per_execution=4, learning_rate=0.1)
    return agent, agent.get_weights()


def cart_pole_run(seed, vectorized, overlap):
    keras.utils.set_random_seed(1)
    env = gym.make_vec("CartPole-v1", 2, "sync") if vectorized else gym.make("CartPole-v1")
    collect = collector(env, seed=seed, warmup_steps=20, overlap=overlap)
    agent, weights = learning_agent()
    agent.set_weights(weights)
    fit(collect, agent, updates=24)
    observation, transition, _ = collect.replay.sample(200)
    return observation, transition["action"], *agent.get_weights()


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize("vectorized", [False, True], ids=["single", "vector"])
def test_the_seed_determines_the_run(vectorized, overlap):
    first, again = (cart_pole_run(0, vectorized, overlap) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = cart_pole_run(1, vectorized, overlap)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


# What is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"env_steps_per_update": 0}, "`env_steps_per_update` must be above 0. Received: .*=0"),
        ({"env_steps_per_update": -1.0}, "`env_steps_per_update` must be above 0"),
        ({"env_steps_per_update": float("nan")}, "`env_steps_per_update` must be above 0"),
        ({"warmup_steps": 51}, "`warmup_steps` must be.*warmup_steps=51, capacity=50"),
        ({"warmup_steps": -1}, "`warmup_steps` must be between 0 and"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        collector(CountingEnv(), capacity=50, **arguments)


@pytest.mark.parametrize(
    ("env", "name"),
    [
        (CountingEnv(start=1), "action_space"),
        (DictCountingEnv(), "observation_space"),
        (counting_vector("SameStep", 2), "num_envs"),
    ],
    ids=["action space", "observation space", "num_envs"],
)
def test_buffer_of_another_environment_is_refused(env, name):
    replay = ReplayBuffer.from_env(CountingEnv(), 100)
    with pytest.raises(ValueError, match=f"its `{name}` differs.*Received: env {name}="):
        CollectTransitions(env, replay, exploration=Greedy())


@pytest.mark.parametrize("num_actions", [2, 5])
def test_network_of_another_number_of_actions_is_refused(num_actions):
    collect = collector(CountingEnv())
    agent = agent_of(always(1, num_actions))
    with pytest.raises(ValueError, match="each of the 3 actions"):
        fit(collect, agent)
    # `fit` knows the buffer of a replay dataset; of any other the collector finds out.
    dataset = collect.replay.dataset(4).map(lambda *batch: batch)
    with pytest.raises(ValueError, match=rf"each of the 3 actions.*shape=\(1, {num_actions}\)"):
        agent.fit(dataset, steps_per_epoch=4, callbacks=[collect], verbose=0)
    assert collect.env_steps == 10


def test_wrong_environment_type_is_refused():
    replay = ReplayBuffer.from_env(CountingEnv(), 100)
    with pytest.raises(TypeError, match="`env` must be a gymnasium"):
        CollectTransitions("CartPole-v1", replay, exploration=Greedy())
