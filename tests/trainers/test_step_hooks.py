"""What callbacks ask of a `fit`, on models that are no `DQN`."""

import gc
import weakref

import keras
import numpy as np
import pytest
from envs import CountingEnv

import keras_dqn
from keras_dqn import SoftTargetUpdate
from keras_dqn.trainers.step_hooks import hooks_of

X, Y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)


def plain_pair():
    def make():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])

    student, teacher = make(), make()
    student.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return student, teacher


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_a_foreign_model_carries_nothing_of_ours(method):
    student, teacher = plain_pair()
    y = () if method == "predict" else (Y,)
    getattr(student, method)(X, *y, verbose=0)
    names = set(vars(student))
    callback = SoftTargetUpdate(0.5, source=student, target=teacher)
    getattr(student, method)(X, *y, verbose=0, callbacks=[callback])
    assert set(vars(student)) == names


def test_hooks_go_with_the_callbacks_that_hold_them():
    student, teacher = plain_pair()
    callback = SoftTargetUpdate(0.5, source=student, target=teacher)
    student.fit(X, Y, verbose=0, callbacks=[callback])
    hooks = weakref.ref(hooks_of(student))
    assert hooks() is not None
    del callback
    student.history = None  # holds the list of callbacks' model, not the callbacks
    gc.collect()
    assert hooks() is None


def test_left_over_hooks_run_in_no_later_fit():
    """After Ctrl-C in a callback, which Keras does not tell, a `fit` without the callback."""
    student, teacher = plain_pair()
    callback = SoftTargetUpdate(0.5, source=student, target=teacher)
    with pytest.raises(KeyboardInterrupt):
        student.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback, Interrupt()])
    before = teacher.get_weights()[0]
    student.fit(X, Y, batch_size=4, verbose=0)
    student.train_on_batch(X, Y)
    np.testing.assert_array_equal(teacher.get_weights()[0], before)
    assert student.get_weights()[0].tolist() != before.tolist()


def test_two_callbacks_share_the_hooks_of_a_model():
    student, teacher = plain_pair()
    targets = [teacher, keras.models.clone_model(teacher)]
    callbacks = [SoftTargetUpdate(0.5, source=student, target=target) for target in targets]
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(hooks_of(student))
    )
    student.fit(X, Y, verbose=0, callbacks=[*callbacks, look])
    assert hooks_of(student) is seen[0]
    assert hooks_of(teacher) is not seen[0]


class HoistingModel(keras.Sequential):
    """Reads `train_function` once, before the callbacks begin, as a later Keras might."""

    def make_train_function(self, force=False):
        super().make_train_function(force)
        if not force:
            self.hoisted = self.train_function

    @property
    def train_function(self):
        return getattr(self, "hoisted", None) or vars(self).get("made")

    @train_function.setter
    def train_function(self, function):
        vars(self)["made"] = function


def test_a_keras_that_reads_the_train_function_once_is_noticed_in_the_first_execution():
    model = HoistingModel([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    _, teacher = plain_pair()
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: batches.append(b))
    callback = SoftTargetUpdate(0.5, source=model, target=teacher)
    with pytest.raises(RuntimeError, match="The target network was not updated"):
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[callback, count])
    assert not batches


def test_the_count_of_updates_has_a_state():
    student, teacher = plain_pair()
    start = teacher.get_weights()[0]
    first = SoftTargetUpdate(1.0, 3, source=student, target=teacher)
    student.fit(X, Y, batch_size=4, verbose=0, callbacks=[first])  # 2 updates
    assert first.get_state() == {"update_count": 2}
    second = SoftTargetUpdate(1.0, 3, source=student, target=teacher)
    second.set_state(first.get_state())
    np.testing.assert_array_equal(teacher.get_weights()[0], start)
    student.fit(X, Y, verbose=0, callbacks=[second])  # the third
    np.testing.assert_array_equal(teacher.get_weights()[0], student.get_weights()[0])


class Named(keras.Model):
    """Has methods and attributes with the names of a `DQN`'s, which mean something else."""

    def __init__(self):
        super().__init__()
        self.network = keras.layers.Dense(1)
        self.update_count = 0

    def call(self, inputs):
        return self.network(inputs)

    def update_target(self, weights, tau):
        raise AssertionError("a method of the user's")


def test_everyday_names_are_not_taken_for_a_dqn():
    model = Named()
    model.compile("sgd", "mse", jit_compile=False)
    model(X)
    teacher = keras.layers.Dense(1)
    teacher.build((None, 3))
    with pytest.raises(ValueError, match="`source` and `target` must be given for a model"):
        model.fit(X, Y, verbose=0, callbacks=[SoftTargetUpdate()])
    callback = SoftTargetUpdate(1.0, 2, source=model.network, target=teacher)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    np.testing.assert_array_equal(teacher.get_weights()[0], model.network.get_weights()[0])


@pytest.mark.parametrize("place", ["environment", "feedback", "callback"])
def test_after_ctrl_c_nothing_is_compiled_again_and_nothing_missed(place, make_agent):
    """Warnings are errors here: 128 batches, drawn but not fed back, are no missing feedback."""
    env = CountingEnv((3,))
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 500, seed=0)
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)]))
    agent.compile("sgd", steps_per_execution=128)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=32, seed=0
    )
    traces, calls, train_step = [], [], agent.train_step
    agent.train_step = lambda data: traces.append(1) or train_step(data)

    def interrupted_at(at, function):
        def interrupted(*args, **kwargs):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return interrupted

    look = keras.callbacks.Callback()
    if place == "environment":  # warm-up, one execution, and some steps of the next
        collect.collector.stepper.step = interrupted_at(200, collect.collector.stepper.step)
    elif place == "feedback":
        replay.update_priorities = interrupted_at(2, replay.update_priorities)
    else:
        look.on_train_batch_end = interrupted_at(2, lambda batch, logs=None: None)
    callbacks = [collect, SoftTargetUpdate(0.5), look]
    arguments = {"steps_per_epoch": 512, "verbose": 0, "callbacks": callbacks}
    with pytest.raises(KeyboardInterrupt):
        agent.fit(replay.dataset(4), **arguments)
    agent.fit(replay.dataset(4), **arguments)
    assert len(traces) == 1
