"""`fit` where there is no terminal: in a notebook, under a redirected or a missing output."""

import io
import re
import sys

import keras
import pytest
from envs import CountingEnv
from td_reference import K4

from keras_dqn import (
    DQN,
    CollectTransitions,
    EpsilonGreedy,
    EvaluatePolicy,
    ReplayBuffer,
    SoftTargetUpdate,
)


class Notebook(io.StringIO):
    """A stream without a file descriptor, as Jupyter's is."""

    def fileno(self):
        raise io.UnsupportedOperation("fileno")

    def isatty(self):
        return False


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_output_goes_to_any_stream(make_agent, make_batches, as_dataset, monkeypatch, verbose):
    stream = Notebook()
    monkeypatch.setattr(sys, "stdout", stream)
    agent = make_agent(**K4)
    agent.fit(
        as_dataset(make_batches(8)), epochs=2, verbose=verbose, callbacks=[SoftTargetUpdate()]
    )
    agent.evaluate(as_dataset(make_batches(8)), verbose=verbose)
    printed = stream.getvalue()
    if verbose == 0:
        assert printed == ""
    else:
        for text in ("Epoch 2/2", "8/8", "loss: ", "q_value: ", "abs_td_error: "):
            assert text in printed
    assert int(agent.update_count) == 16


COLORS = re.compile(r"\x1b\[[0-9;]*m")


def test_the_bar_fits_a_terminal_while_an_epoch_runs(capsys):
    """What the bar shows before the end of an epoch, with five digits of steps and of the loss."""
    env = CountingEnv((2,))
    replay = ReplayBuffer.from_env(env, 200, seed=0)
    agent = DQN(keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)]))
    agent.compile("sgd", steps_per_execution=4)
    history = agent.fit(
        replay.dataset(4),
        steps_per_epoch=10,
        epochs=2,
        verbose=1,
        callbacks=[
            CollectTransitions(env, replay, exploration=EpsilonGreedy(0.5), warmup_steps=8),
            SoftTargetUpdate(),
            EvaluatePolicy(CountingEnv((2,)), episodes=2),
        ],
    ).history
    states = COLORS.sub("", capsys.readouterr().out.replace("\b", "")).replace("\n", "\r")
    states = [state.strip() for state in states.split("\r") if "/10 " in state]
    running = [state for state in states if "val_return" not in state]
    assert {len(history[name]) for name in ("q_value", "abs_td_error", "epsilon", "env_steps")} == {
        2
    }
    assert [state.split("/")[0] for state in states if state not in running] == ["10", "10"]
    assert max(int(state.split("/")[0]) for state in states) == 10  # 12 are in three executions
    for state in running:
        names = [part.split(":")[0] for part in state.split(" - ")[1:]]
        assert set(names) <= {"loss", "episode_return"}
    shown = "00000/00000 " + 20 * "━" + " 00:00 000ms/step - loss: 00000.0000"
    assert len(shown + " - episode_return: -00000.0000") <= 110
    for name in ("q_value", "abs_td_error", "episode_length", "epsilon", "env_steps"):
        assert all(f" - {name}: " in state for state in states if state not in running)
