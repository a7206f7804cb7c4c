"""Whole runs for the tests of `TrainingCheckpoint`, made anew each time, as after a restart."""

import functools
from typing import Any, NamedTuple

import gymnasium as gym
import keras
import numpy as np
from gymnasium.vector import SyncVectorEnv

import keras_dqn


class Run(NamedTuple):
    """The objects of a run; after training also what `fit` returned, and the state of all parts."""

    agent: Any
    replay: Any
    collect: Any
    evaluate: Any
    history: Any = None
    state: Any = None


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` as Ctrl-C does, after so many executions."""

    def __init__(self, executions: int) -> None:
        super().__init__()
        self.left = executions

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def cartpole(kind: str) -> Any:
    """A single CartPole, or two of them in a vector environment of an autoreset mode."""
    if kind == "single":
        return gym.make("CartPole-v1")
    make = [lambda: gym.make("CartPole-v1")] * 2
    return SyncVectorEnv(make, autoreset_mode=kind)


def new_agent(kind: str, K: int = 8, metrics: tuple[str, ...] = ()) -> Any:
    """A compiled agent for CartPole, the same for the same arguments."""
    keras.utils.set_random_seed(0)
    inputs, hidden = keras.Input((4,)), keras.layers.Dense(8, "tanh")
    if kind == "iqn":
        torso = keras.Sequential([inputs, hidden])
        agent = keras_dqn.ImplicitQuantileDQN(torso, keras.layers.Dense(2))
    elif kind == "c51":
        layers = [inputs, hidden, keras.layers.Dense(2 * 51), keras.layers.Reshape((2, 51))]
        agent = keras_dqn.CategoricalDQN(keras.Sequential(layers), v_min=0, v_max=9)
    else:
        layers = {
            "plain": [inputs, hidden, keras.layers.Dense(2)],
            "wide": [inputs, keras.layers.Dense(9), keras.layers.Dense(2)],
            "unbuilt": [hidden, keras.layers.Dense(2)],
            "dropout": [inputs, hidden, keras.layers.Dropout(0.5), keras.layers.Dense(2)],
            "noisy": [inputs, hidden, keras_dqn.layers.NoisyDense(2)],
        }[kind]
        agent = keras_dqn.DQN(keras.Sequential(layers), double=True)
    optimizer = keras.optimizers.Adam(0.01)
    agent.compile(optimizer, steps_per_execution=K, jit_compile=False, metrics=list(metrics))
    return agent


@functools.cache
def kept_agent(*args: Any) -> tuple[Any, Any]:
    """An agent with its compiled program, and its state before training."""
    agent = new_agent(*args)
    return agent, agent.get_state()


def make_run(
    env: str = "single",
    prioritized: bool = False,
    overlap: bool = False,
    kind: str = "plain",
    K: int = 8,
    metrics: tuple[str, ...] = (),
    capacity: int = 300,
    max_env_steps: int | None = None,
    replay: Any = None,
    anew: bool = False,
    **buffer: Any,
) -> Run:
    """Makes the objects of a small run on CartPole, as a program does when it starts.

    Unless `anew` is True, the agent is the one of an earlier run, with its first weights. That
    saves compiling it.
    """
    if anew:
        agent = new_agent(kind, K, metrics)
    else:
        agent, first_state = kept_agent(kind, K, metrics)
        agent.set_state(first_state)
    environment = cartpole(env)
    if replay is None:
        cls = keras_dqn.PrioritizedReplayBuffer if prioritized else keras_dqn.ReplayBuffer
        replay = cls.from_env(environment, capacity, seed=0, **buffer)
    collect = keras_dqn.CollectTransitions(
        environment,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.1, 400)),
        warmup_steps=50,
        overlap=overlap,
        max_env_steps=max_env_steps,
        seed=0,
    )
    evaluate = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=1, seed=5)
    return Run(agent, replay, collect, evaluate)


def train(
    run: Run,
    directory: Any = None,
    epochs: int = 4,
    steps: int = 40,
    callbacks: Any = (),
    interrupt: int | None = None,
    verbose: int = 0,
    **kwargs: Any,
) -> Run:
    """Trains a run; with a directory, under a `TrainingCheckpoint`, which may come first."""
    parts = [run.collect, keras_dqn.SoftTargetUpdate(0.05), run.evaluate, *callbacks]
    if directory is not None:
        parts.insert(0, keras_dqn.TrainingCheckpoint(directory, **kwargs))
    if interrupt is not None:
        parts.append(Interrupt(interrupt))
    dataset = keras_dqn.ReplayDataset(run.replay, 16, n_step=3)
    try:
        history = run.agent.fit(
            dataset, epochs=epochs, steps_per_epoch=steps, callbacks=parts, verbose=verbose
        )
    except KeyboardInterrupt:
        return run
    saved = [part for part in run[:4] if hasattr(part, "get_state")]
    state = {type(part).__name__: part.get_state() for part in saved}
    state["History"] = {"epoch": history.epoch, **history.history}
    return run._replace(history=history, state=state)


def assert_same(run: Run, expected: Run) -> None:
    """Checks that two runs are equal, bit for bit, in all that a run is."""
    np.testing.assert_equal(run.state, expected.state)
    assert len(run.state) == 5
