"""Keras' own callbacks where executions, the target network or averages could come between.

That they work on `val_return` is shown in tests/callbacks/test_evaluate_policy.py.
"""

import keras
import numpy as np
import pytest
from conftest import KERAS_VERSION
from td_reference import K4, Reference, in_executions, sgd

from keras_dqn import SoftTargetUpdate

cb = keras.callbacks


def recorder(agent, weights):
    """Keeps all weights of each epoch's end."""
    return cb.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(agent.get_weights()))


def scripted(name, values):
    """Puts one value an epoch into the logs, as EvaluatePolicy does."""
    return cb.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update({name: values[epoch]}))


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_stopping_restores_both_networks(make_agent, make_batches, as_dataset):
    agent, weights = make_agent(**K4), []
    stop = cb.EarlyStopping("val_return", mode="max", patience=2, restore_best_weights=True)
    callbacks = [
        SoftTargetUpdate(0.3),
        recorder(agent, weights),
        scripted("val_return", [1.0, 5.0, 4.0, 3.0, 9.0]),
        stop,
    ]
    agent.fit(as_dataset(make_batches(4)), epochs=5, verbose=0, callbacks=callbacks)
    assert len(weights) == 4
    assert_equal(agent.get_weights(), weights[1])
    assert int(agent.update_count) == 8  # it counts on from the best epoch
    assert np.any(weights[1][-1] != weights[3][-1])


@pytest.mark.skipif(KERAS_VERSION < (3, 13), reason="Keras counted a batch too few an execution")
@in_executions
def test_model_checkpoint_by_batches(make_agent, make_batches, as_dataset, tmp_path, execution):
    """`save_freq` counts updates, whatever an execution holds."""
    agent = make_agent(**execution)
    path = str(tmp_path / "{batch}.weights.h5")
    save = cb.ModelCheckpoint(path, save_weights_only=True, save_freq=4)
    agent.fit(as_dataset(make_batches(8)), verbose=0, callbacks=[SoftTargetUpdate(0.3), save])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["4.weights.h5", "8.weights.h5"]
    last = agent.get_weights()
    agent.load_weights(tmp_path / "4.weights.h5")
    assert int(agent.update_count) == 4
    agent.load_weights(tmp_path / "8.weights.h5")
    assert_equal(agent.get_weights(), last)


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["compiled", "eager"])
def test_hard_update_that_is_not_due_yet_warns_of_nothing(
    make_agent, make_batches, as_dataset, run_eagerly
):
    agent = make_agent(run_eagerly=run_eagerly, jit_compile=False)
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=[SoftTargetUpdate(1.0, 1_000)])
    assert int(agent.update_count) == 2


@in_executions
def test_terminate_on_nan_ends_within_the_epoch(make_agent, make_batches, as_dataset, execution):
    batches = make_batches(12)
    batches[5][1]["reward"][:] = np.nan
    agent = make_agent(**execution)
    history = agent.fit(
        as_dataset(batches),
        epochs=3,
        verbose=0,
        callbacks=[SoftTargetUpdate(0.3), cb.TerminateOnNaN()],
    )
    assert len(history.epoch) == 1
    assert int(agent.update_count) == {1: 6, 4: 8}[execution["steps_per_execution"]]


@in_executions
def test_backup_and_restore_within_an_epoch(
    make_agent, make_batches, as_dataset, tmp_path, execution
):
    class Interrupt(Exception):
        pass

    def interrupt(batch, logs):
        if int(interrupted.update_count) == 12:
            raise Interrupt

    batches = make_batches(8)
    interrupted, resumed = make_agent(**execution), make_agent(**execution)
    # Keras counts one batch less than there are in an epoch's first execution.
    backup = cb.BackupAndRestore(tmp_path / "backup", save_freq=1)
    callbacks = [SoftTargetUpdate(0.3), backup]
    with pytest.raises(Interrupt):
        interrupted.fit(
            as_dataset(batches),
            epochs=2,
            verbose=0,
            callbacks=[*callbacks, cb.LambdaCallback(on_train_batch_end=interrupt)],
        )
    restored = []
    look = cb.LambdaCallback(on_train_begin=lambda logs: restored.extend(resumed.get_weights()))
    history = resumed.fit(as_dataset(batches), epochs=2, verbose=0, callbacks=[*callbacks, look])
    assert_equal(restored, interrupted.get_weights())
    assert history.epoch == [1]  # Keras restores the epoch, not the place in it
    assert int(resumed.update_count) == 12 + 8


def test_swap_ema_weights(make_agent, make_batches, as_dataset):
    """Evaluation and checkpoints see the average, training and the target the weights."""
    batches = make_batches(4)
    agent = make_agent(
        optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9),
        loss="mse",
        **K4,
    )
    averages = []

    def step(weights, gradients, update):
        weights = sgd(0.1)(weights, gradients, update)
        last = averages[-1] if averages else weights
        averages.append([0.9 * a + 0.1 * w for a, w in zip(last, weights, strict=True)])
        return weights

    reference = Reference(agent).run(2 * batches, step)
    seen = []
    look = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(agent.policy()))
    agent.fit(
        as_dataset(batches),
        epochs=2,
        verbose=0,
        callbacks=[SoftTargetUpdate(0.3), cb.SwapEMAWeights(swap_on_epoch=True), look],
    )
    x = batches[0][0]
    for policy, average in zip(seen, averages[3::4], strict=True):
        reference.network.set_weights(average)
        np.testing.assert_allclose(policy.action_values(x), reference.network(x), rtol=0, atol=1e-5)
    reference.check(agent)
