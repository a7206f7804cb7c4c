"""`keras.callbacks.TensorBoard` beside ours: what the event files hold is what History holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_VERSION
from envs import ChainEnv
from td_reference import in_executions

from keras_dqn import (
    CollectTransitions,
    EpsilonGreedy,
    EvaluatePolicy,
    LinearSchedule,
    ReplayBuffer,
    SoftTargetUpdate,
)

pytest.importorskip("tensorboard", reason="python -m pip install tensorboard")


def events(directory):
    """Returns `{tag: {step: value}}` of the scalars and `{tag: steps}` of the histograms."""
    scalars, histograms = {}, {}
    for path in directory.iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    assert event.step not in scalars.setdefault(value.tag, {})
                    scalars[value.tag][event.step] = tf.make_ndarray(value.tensor).item()
                elif value.metadata.plugin_data.plugin_name == "histograms":
                    histograms.setdefault(value.tag, []).append(event.step)
    return scalars, histograms


@in_executions
def test_epochs_are_those_of_the_history(make_agent, make_network, tmp_path, execution):
    env = ChainEnv(length=3, time_limit=4)
    replay = ReplayBuffer.from_env(env, 200, seed=0)
    exploration = EpsilonGreedy(LinearSchedule(1.0, 0.0, 100))
    agent = make_agent(make_network(), **execution)
    history = agent.fit(
        replay.dataset(4),
        epochs=3,
        steps_per_epoch=16,
        verbose=0,
        callbacks=[
            CollectTransitions(env, replay, exploration=exploration, warmup_steps=10, seed=0),
            SoftTargetUpdate(0.1),
            EvaluatePolicy(ChainEnv(3, 4), episodes=2),
            keras.callbacks.TensorBoard(tmp_path),
        ],
    ).history
    train, _ = events(tmp_path / "train")
    validation, _ = events(tmp_path / "validation")
    for name in ("loss", "q_value", "episode_return", "episode_length", "env_steps", "epsilon"):
        assert train[f"epoch_{name}"] == dict(enumerate(np.float32(history[name]))), name
    assert validation["epoch_return"] == dict(enumerate(np.float32(history["val_return"])))
    assert history["env_steps"] == [26, 42, 58]
    assert len(set(history["epsilon"])) == 3
    assert np.isfinite(history["episode_return"]).all()


@in_executions
def test_batches_are_executions(make_agent, make_batches, as_dataset, tmp_path, execution):
    agent = make_agent(**execution)
    losses = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(np.float32(logs["loss"]))
    )
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1, write_steps_per_second=True)
    agent.fit(
        as_dataset(make_batches(8)), verbose=0, callbacks=[SoftTargetUpdate(0.1), look, board]
    )
    scalars, _ = events(tmp_path / "train")
    assert list(scalars["batch_loss"].values()) == losses
    assert len(losses) == 8 // execution["steps_per_execution"]
    assert scalars["epoch_steps_per_second"][0] > 0


@pytest.mark.skipif(KERAS_VERSION < (3, 13), reason="Keras named a histogram by its layer alone")
def test_histograms_tell_the_two_networks_apart(make_agent, make_batches, as_dataset, tmp_path):
    agent = make_agent()
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    agent.fit(as_dataset(make_batches()), verbose=0, callbacks=[SoftTargetUpdate(0.1), board])
    _, histograms = events(tmp_path / "train")
    assert len(histograms) == 8
    assert all(steps == [0] for steps in histograms.values())
