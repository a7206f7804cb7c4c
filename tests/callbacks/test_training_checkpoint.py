"""A run that is interrupted and resumed is equal to one that is not, bit for bit."""

import errno
import json
import re

import gymnasium as gym
import keras
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from runs import Interrupt, assert_same, make_run, train

import keras_dqn
from keras_dqn import TrainingCheckpoint
from keras_dqn.saving import state_file

MODES = [mode.value for mode in AutoresetMode]


def interrupted(directory, make, at, **kwargs):
    """Trains a run that is interrupted after each of `at` executions, each time made anew."""
    for executions in at:
        assert train(make(), directory, interrupt=executions, **kwargs).history is None
    return train(make(), directory, **kwargs)


@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
@pytest.mark.parametrize("env", ["single", *MODES])
def test_a_resumed_run_equals_one_that_was_not_interrupted(env, overlap, tmp_path):
    def make():
        return make_run(env=env, overlap=overlap, prioritized=env != "single")

    expected = train(make(), tmp_path / "whole")
    # Within the first epoch, in the second one, and after the third one's end (5 executions each).
    run = interrupted(tmp_path / "parts", make, at=[3, 7, 6])
    assert_same(run, expected)
    assert len(run.history.epoch) == 4


@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
def test_a_run_continues_in_the_middle_of_an_epoch(overlap, tmp_path):
    def make(anew=False):
        kwargs = {"metrics": ("mse",), "anew": anew, "overlap": overlap}
        return make_run(env=MODES[0], prioritized=True, **kwargs)

    expected = train(make(), tmp_path / "whole", save_freq=10_000)
    for executions in (3, 3, 4, 7):
        train(make(), tmp_path / "parts", interrupt=executions, save_freq=8)
    run = train(make(anew=True), tmp_path / "parts", save_freq=8)  # its metrics are not built yet
    assert_same(run, expected)


def test_checkpoints_do_not_change_a_run(tmp_path):
    for variant in ("proportional", "rank"):
        make = {"env": MODES[1], "prioritized": True, "variant": variant}
        expected = train(make_run(**make))
        assert_same(train(make_run(**make), tmp_path / variant, save_freq=8), expected)


class CountsEpochs(keras.callbacks.Callback):
    """A callback that changes its state when an epoch begins."""

    count = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.count += 1

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def test_an_epoch_that_continues_does_not_begin_twice(tmp_path):
    def callbacks():
        return [
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            CountsEpochs(),
        ]

    expected = train(make_run(), callbacks=callbacks())
    train(make_run(), tmp_path, callbacks=callbacks(), interrupt=8, save_freq=8)
    parts = callbacks()
    assert_same(train(make_run(), tmp_path, callbacks=parts, save_freq=8), expected)
    assert parts[1].count == 4


class Seen(keras.callbacks.Callback):
    """Notes the events that a callback of the user hears."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("epoch", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("end", epoch))


def test_no_callback_hears_of_skipped_executions(tmp_path, capsys):
    train(make_run(), tmp_path, epochs=2, interrupt=8, save_freq=16)
    seen = Seen()
    train(make_run(), tmp_path, epochs=3, callbacks=[seen], save_freq=16, verbose=1)
    first = [("epoch", 1), 16, 24, 32, ("end", 1)]
    assert seen.events == [*first, ("epoch", 2), 0, 8, 16, 24, 32, ("end", 2)]
    printed = capsys.readouterr().out
    assert "Epoch 2/3" in printed
    assert re.search(
        r"(?<!\d)(24|17)/40", printed
    )  # old versions of Keras show where a step begins
    assert re.search(r"(?<!\d)[18]/40", printed.partition("Epoch 3/3")[2])


@pytest.mark.parametrize("add_history", [True, False])
def test_a_callback_list_of_keras_continues(add_history, tmp_path):
    def fit(directory, interrupt=99):
        run = make_run()
        parts = [TrainingCheckpoint(directory, save_freq=8), run.collect, Interrupt(interrupt)]
        parts.append(keras_dqn.SoftTargetUpdate(0.05))
        params = {"epochs": 3, "steps": 40, "verbose": 0}
        members = keras.callbacks.CallbackList(
            parts, add_history=add_history, model=run.agent, **params
        )
        dataset = keras_dqn.ReplayDataset(run.replay, 16)
        options = {"epochs": 3, "steps_per_epoch": 40, "callbacks": members, "verbose": 0}
        return run.agent.fit(dataset, **options).history

    expected = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", interrupt=8)
    assert fit(tmp_path / "parts") == expected


def test_an_interrupted_skip_leaves_the_train_function(tmp_path):
    train(make_run(), tmp_path, epochs=2, interrupt=8, save_freq=16)

    class StopEarly(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyboardInterrupt

    run = make_run()
    train(run, tmp_path, epochs=3, callbacks=[StopEarly()], save_freq=16)
    before = int(run.agent.update_count)
    run.agent.fit(run.replay.dataset(4), steps_per_epoch=8, verbose=0)
    assert int(run.agent.update_count) == before + 8


@pytest.mark.parametrize("kind", ["dropout", "noisy", "iqn"])
def test_the_seeds_of_layers_continue(kind, tmp_path):
    def make():
        return make_run(kind=kind)

    expected = train(make())
    assert_same(interrupted(tmp_path, make, at=[7, 8]), expected)


@pytest.mark.parametrize("kind", ["memmap", "small", "unbuilt"])
def test_other_buffers_and_networks_continue(kind, tmp_path):
    counter = iter(range(10))

    def make():
        if kind == "memmap":
            return make_run(storage="memmap", directory=tmp_path / f"files{next(counter)}")
        if kind == "unbuilt":
            return make_run(kind=kind, anew=True)
        return make_run(prioritized=True, capacity=60)

    expected = train(make(), tmp_path / "whole")
    assert_same(interrupted(tmp_path / "parts", make, at=[7, 8]), expected)


def test_a_buffer_for_validation_continues(tmp_path):
    def losses(directory, interrupt=None):
        run, other = make_run(), make_run()
        other.collect.warm_up()
        dataset = keras_dqn.ReplayDataset(run.replay, 16)
        parts = [run.collect, keras_dqn.SoftTargetUpdate(0.05), TrainingCheckpoint(directory)]
        if interrupt is not None:
            parts.append(Interrupt(interrupt))
        options = {"epochs": 4, "steps_per_epoch": 40, "callbacks": parts, "verbose": 0}
        validation = keras_dqn.ReplayDataset(other.replay, 16)
        # 5 is no multiple of `steps_per_execution`
        history = run.agent.fit(dataset, validation_data=validation, validation_steps=5, **options)
        return history.history["val_loss"]

    expected = losses(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        losses(tmp_path / "parts", interrupt=12)
    assert losses(tmp_path / "parts") == expected


# The state of other callbacks


def test_callbacks_of_keras_continue(tmp_path):
    made = []

    def callbacks():
        parts = [
            keras.callbacks.EarlyStopping("episode_return", mode="max", patience=9),
            keras.callbacks.ReduceLROnPlateau("loss", mode="min", patience=2, cooldown=1),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.keras", "loss", mode="min", save_best_only=True
            ),
        ]
        made.append(parts)
        return parts

    def states():
        names = ("best", "wait", "stopped_epoch", "best_epoch", "cooldown_counter")
        return [[vars(part).get(name) for name in names] for part in made[-1]]

    expected = train(make_run(), epochs=9, steps=16, callbacks=callbacks())
    expected_states = states()
    for at in (5, 4, 3):  # two executions an epoch
        run = make_run()
        train(run, tmp_path / "run", 9, 16, callbacks=callbacks(), interrupt=at)
    run = train(make_run(), tmp_path / "run", 9, 16, callbacks=callbacks())
    assert_same(run, expected)
    assert states() == expected_states
    assert any(state[1] for state in expected_states)  # something was there to restore


class Counts(keras.callbacks.Callback):
    """A callback of the user with a state."""

    count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1

    def get_state(self):
        return {"count": self.count, "array": np.arange(self.count)}

    def set_state(self, state):
        assert state["array"].tolist() == list(range(state["count"]))
        self.count = state["count"]


def test_callbacks_of_the_user_and_the_learning_curve_continue(tmp_path):
    def callbacks(name):
        return [Counts(), keras_dqn.LearningCurve(tmp_path / f"{name}.png"), Counts()]

    whole, parts = callbacks("whole"), callbacks("parts")
    train(make_run(), epochs=2, callbacks=whole)
    train(make_run(), tmp_path / "run", 2, callbacks=callbacks("x"), interrupt=7)
    train(make_run(), tmp_path / "run", 2, callbacks=parts)
    assert [whole[0].count, whole[2].count] == [parts[0].count, parts[2].count] == [2, 2]
    assert parts[1].get_state() == whole[1].get_state()


def test_a_state_that_cannot_be_saved_is_refused_at_once(tmp_path):
    class Wrong(Counts):
        def get_state(self):
            return {"set": {1, 2}}

    run = make_run()
    with pytest.raises(TypeError, match="`get_state` of the callback Wrong 0 cannot be used"):
        train(run, tmp_path, callbacks=[Wrong()])
    assert int(run.agent.update_count) == 0


def test_a_callback_that_only_one_side_has_is_named(tmp_path):
    train(make_run(), tmp_path, epochs=1, callbacks=[Counts()])
    with pytest.warns(UserWarning, match=r"only in `fit`.*\['Counts 0', 'EarlyStopping 0'\]"):
        train(make_run(), tmp_path, epochs=2, callbacks=[keras.callbacks.EarlyStopping("loss")])


# Runs that have ended


def test_a_finished_run_trains_nothing_and_returns_its_history(tmp_path):
    expected = train(make_run(), tmp_path)
    seen = Seen()
    assert_same(train(make_run(), tmp_path, callbacks=[seen]), expected)
    assert seen.events == []
    extended = train(make_run(), tmp_path, epochs=6)
    assert_same(extended, train(make_run(), epochs=6))
    assert extended.history.epoch == [0, 1, 2, 3, 4, 5]


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    def stop():
        return keras.callbacks.EarlyStopping(
            "episode_return", mode="min", patience=1, restore_best_weights=True
        )

    expected = train(make_run(), tmp_path, epochs=20, callbacks=[stop()])
    assert 1 < len(expected.history.epoch) < 20
    assert_same(train(make_run(), tmp_path, epochs=20, callbacks=[stop()]), expected)


def test_a_run_that_took_all_its_steps_stays_stopped(tmp_path):
    def make(steps=130):
        return make_run(env=MODES[0], max_env_steps=steps)

    expected = train(make(), tmp_path)
    assert expected.collect.env_steps == 130
    assert_same(train(make(), tmp_path), expected)
    assert train(make(150), tmp_path).collect.env_steps == 150  # a higher limit continues it


def test_a_second_fit_of_the_same_objects_continues(tmp_path):
    run = make_run()
    train(run, tmp_path, epochs=2)
    run = train(run, tmp_path, epochs=4)
    assert_same(run, train(make_run(), epochs=4))


def test_going_back_behind_what_the_agent_has_learned_is_said(tmp_path):
    run = make_run()
    train(run, tmp_path, epochs=2)
    train(run, epochs=1)  # without a checkpoint
    with pytest.warns(UserWarning, match="trained for 120 updates. It goes back.*after 80"):
        run = train(run, tmp_path, epochs=4)
    assert_same(run, train(make_run(), epochs=4))


# What is refused


def refused(directory, match, run=None, **kwargs):
    run = run or make_run()
    before = run.agent.get_state()
    with pytest.raises(ValueError, match=match) as caught:
        train(run, directory, **kwargs)
    assert "\n" not in str(caught.value)
    np.testing.assert_equal(run.agent.get_state(), before)
    assert int(run.agent.update_count) == 0


@pytest.mark.parametrize(
    ("callback", "match"),
    [
        (lambda: keras.callbacks.BackupAndRestore("x"), "together with BackupAndRestore"),
        (
            lambda: keras.callbacks.ModelCheckpoint("x.keras", save_freq=100),
            "`save_freq` of ModelCheckpoint must be 'epoch'.*Received: save_freq=100",
        ),
        (
            lambda: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            "`swap_on_epoch` of SwapEMAWeights must be False.*Received: swap_on_epoch=True",
        ),
        (lambda: TrainingCheckpoint("x"), "can have one `TrainingCheckpoint`. Received: 2"),
    ],
    ids=["backup", "model checkpoint", "averages", "twice"],
)
def test_callbacks_that_cannot_continue_are_refused(callback, match, tmp_path):
    refused(tmp_path / "run", match, callbacks=[callback()])
    assert not list(tmp_path.iterdir())


def test_a_csv_logger_that_would_overwrite_is_refused(tmp_path):
    file = tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(file)
    train(make_run(), tmp_path / "run", epochs=2, callbacks=[logger])  # a new run may
    text = file.read_text()
    refused(tmp_path / "run", "`append` of CSVLogger must be True", callbacks=[logger])
    assert file.read_text() == text
    logger = keras.callbacks.CSVLogger(file, append=True)
    train(make_run(), tmp_path / "run", epochs=3, callbacks=[logger])
    assert file.read_text().startswith(text)
    assert len(file.read_text().splitlines()) == 4


def test_other_models_are_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"needs a DQN.*BackupAndRestore"):
        model.fit(np.zeros((4, 2)), np.zeros(4), callbacks=[TrainingCheckpoint("x")], verbose=0)


class ForeignBuffer:
    """A buffer of the user that has what `fit` needs, but no state."""

    def __init__(self, replay):
        self._replay = replay
        for name in ("capacity", "observation_space", "action_space", "num_envs"):
            setattr(self, name, getattr(replay, name))

    def __len__(self):
        return len(self._replay)

    def add(self, *args, **kwargs):
        self._replay.add(*args, **kwargs)

    def sample(self, batch_size, **kwargs):
        return self._replay.sample(batch_size, **kwargs)

    def empty_batch(self):
        return self._replay.empty_batch()


def test_a_buffer_that_cannot_be_saved_is_refused_or_left_out(tmp_path):
    def make():
        return make_run(replay=ForeignBuffer(make_run().replay))

    refused(tmp_path, "can only save a ReplayBuffer.*`include_replay=False`", make())
    run = train(make(), tmp_path, epochs=2, include_replay=False)
    assert run.collect.env_steps == 50 + 80
    with pytest.warns(UserWarning, match="continues without its transitions"):
        run = train(make(), tmp_path, epochs=3, include_replay=False)
    assert run.collect.env_steps == 50 + 80 + 50 + 40  # the warm-up was repeated
    assert run.history.epoch == [0, 1, 2]


def test_checkpoints_of_another_run_are_refused(tmp_path):
    train(make_run(), tmp_path, epochs=1)
    refused(tmp_path, "another network or optimizer", make_run(kind="wide"))
    refused(tmp_path, "its `capacity` differs. Received: capacity=200", make_run(capacity=200))
    refused(tmp_path, "its `class` differs", make_run(prioritized=True))
    refused(tmp_path, "its `num_envs` differs", make_run(env=MODES[0]))
    refused(tmp_path, "checkpoint of a DQN. Received: a CategoricalDQN", make_run(kind="c51"))
    assert_same(train(make_run(), tmp_path), train(make_run()))  # and nothing was lost


def test_other_priorities_and_exploration_are_refused(tmp_path):
    train(make_run(prioritized=True), tmp_path / "a", epochs=1)
    refused(
        tmp_path / "a",
        "its `variant` differs",
        make_run(prioritized=True, variant="rank"),
        epochs=2,
    )
    train(make_run(), tmp_path / "b", epochs=1)
    run = make_run()
    collect = keras_dqn.CollectTransitions(
        run.collect.env, run.replay, exploration=keras_dqn.EpsilonZGreedy(0.1), warmup_steps=50
    )
    match = "the state of CollectTransitions 0 does not fit"
    refused(tmp_path / "b", match, run._replace(collect=collect), epochs=2)


def test_without_a_whole_checkpoint_the_agent_stays_as_it_is(tmp_path):
    train(make_run(), tmp_path, epochs=1)
    (tmp_path / "rows-0-1-0.h5").unlink()
    refused(tmp_path, "where all are damaged", epochs=2)


def test_another_action_space_is_refused(tmp_path):
    space = gym.spaces.Box(-1, 1, (4,))

    def make(actions):
        run = make_run(anew=True)
        replay = keras_dqn.ReplayBuffer(50, space, gym.spaces.Discrete(actions))
        for _ in range(20):
            replay.add(np.zeros(4), 1, 0.0, False, False, np.ones(4))
        return run.agent, replay

    agent, replay = make(2)
    parts = [TrainingCheckpoint(tmp_path), keras_dqn.SoftTargetUpdate()]
    agent.fit(replay.dataset(4), steps_per_epoch=8, callbacks=parts, verbose=0)
    agent, replay = make(2)
    replay.action_space = gym.spaces.Discrete(2, start=1)
    with pytest.raises(ValueError, match="its `action_space` differs"):
        agent.fit(replay.dataset(4), steps_per_epoch=8, callbacks=parts, verbose=0)


def test_a_newer_checkpoint_is_refused_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "_KIND", state_file._KIND._replace(version=2))
    train(make_run(), tmp_path, epochs=1)
    monkeypatch.undo()
    before = sorted(path.name for path in tmp_path.iterdir())
    refused(tmp_path, "it is of version 2, not 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_middle_of_an_epoch_needs_equal_sizes(tmp_path):
    train(make_run(), tmp_path, interrupt=3, save_freq=8)
    refused(
        tmp_path, "`steps_per_execution` must be 8.*Received: steps_per_execution=4", make_run(K=4)
    )
    refused(tmp_path, "`steps_per_epoch` must be 40.*Received: steps_per_epoch=48", steps=48)


@pytest.mark.parametrize("before", [(), ("mse",)], ids=["more", "fewer"])
def test_the_middle_of_an_epoch_needs_equal_metrics(before, tmp_path):
    train(make_run(metrics=before), tmp_path, interrupt=3, save_freq=8)
    after = () if before else ("mse",)
    with pytest.raises(ValueError, match="`metrics` of `compile` must be those of the checkpoint"):
        train(make_run(metrics=after, anew=True), tmp_path)


def test_data_without_a_position_is_refused_or_named(tmp_path):
    run = make_run()
    run.collect.warm_up()
    batch, follow = run.replay.sample(32), keras_dqn.SoftTargetUpdate()

    def fit(**kwargs):
        checkpoint = TrainingCheckpoint(tmp_path, **kwargs)
        run.agent.fit(*batch[:2], 4, verbose=0, callbacks=[checkpoint, follow])

    with pytest.raises(ValueError, match="`save_freq` must be 'epoch' unless"):
        fit(save_freq=8)
    with pytest.warns(UserWarning, match="may have drawn batches in advance"):
        fit()
    run = make_run()
    prefetched = keras_dqn.ReplayDataset(run.replay, 4).prefetch(2)
    parts = [run.collect, follow, TrainingCheckpoint(tmp_path / "prefetched")]
    with pytest.warns(UserWarning, match="may have drawn batches in advance"):
        run.agent.fit(prefetched, steps_per_epoch=8, verbose=0, callbacks=parts)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"max_to_keep": 0}, ValueError, "`max_to_keep` must be at least 1"),
        ({"save_freq": "batch"}, ValueError, "`save_freq` must be 'epoch' or a number of updates"),
        ({"save_freq": 0}, ValueError, "`save_freq` must be at least 1"),
        ({"include_replay": 1}, TypeError, "`include_replay` must be True or False"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        TrainingCheckpoint("x", **arguments)


def test_a_wrapper_with_a_state_is_named(tmp_path):
    run = make_run()
    env = gym.wrappers.NormalizeReward(gym.make("CartPole-v1"))
    replay = keras_dqn.ReplayBuffer.from_env(env, 300)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(0.1), warmup_steps=50
    )
    with pytest.warns(UserWarning, match="state of NormalizeReward is not in a checkpoint"):
        train(run._replace(replay=replay, collect=collect), tmp_path, epochs=1)


# Hard use


def test_a_full_disk_costs_a_warning_and_no_checkpoint(tmp_path, monkeypatch):
    train(make_run(), tmp_path, epochs=2)

    def full(path, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("keras_dqn.hdf5.reserve", full)
        with pytest.warns(UserWarning, match="could not save the run in epoch 3.*No space left"):
            train(make_run(), tmp_path, epochs=3)
    run = make_run()
    resumed = train(run, tmp_path, epochs=4)
    assert resumed.history.epoch == [0, 1, 2, 3]
    assert_same(resumed, train(make_run(), epochs=4))


def test_a_run_goes_on_saving_after_a_full_disk(tmp_path, monkeypatch):
    class FullInEpochTwo(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                patch.setattr("keras_dqn.hdf5.reserve", full)
            else:
                patch.undo()

    def full(path, size):
        if "checkpoint" in path:  # after the rows were written
            raise OSError(errno.ENOSPC, "No space left on device")

    patch = pytest.MonkeyPatch()
    with pytest.warns(UserWarning, match="could not save the run in epoch 2"):
        train(make_run(), tmp_path, epochs=3, callbacks=[FullInEpochTwo()])
    assert_same(train(make_run(), tmp_path, epochs=4), train(make_run(), epochs=4))


def test_a_damaged_newest_checkpoint_costs_one_epoch(tmp_path):
    train(make_run(), tmp_path, epochs=3)
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1_000])
    seen = Seen()
    with pytest.warns(UserWarning, match="newest checkpoint is damaged"):
        run = train(make_run(), tmp_path, epochs=4, callbacks=[seen])
    assert seen.events[0] == ("epoch", 2)
    assert_same(run, train(make_run(), epochs=4))


def test_a_damaged_file_of_rows_costs_one_epoch(tmp_path):
    train(make_run(), tmp_path, epochs=3)
    newest = state_file.read_header(str(max(tmp_path.glob("checkpoint-*"))))
    (tmp_path / newest["files"][-1]).unlink()
    with pytest.warns(UserWarning, match="newest checkpoint is damaged"):
        run = train(make_run(), tmp_path, epochs=4)
    assert_same(run, train(make_run(), epochs=4))


def test_a_damaged_older_checkpoint_does_not_end_training(tmp_path):
    train(make_run(), tmp_path, epochs=2, max_to_keep=3)
    oldest = min(tmp_path.glob("checkpoint-*"))
    oldest.write_bytes(oldest.read_bytes()[:-1_000])
    run = train(make_run(), tmp_path, epochs=4, max_to_keep=3)
    assert_same(run, train(make_run(), epochs=4))


def test_a_change_of_the_working_directory_does_not_move_checkpoints(tmp_path, monkeypatch):
    class Leave(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            monkeypatch.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    train(make_run(), "run", epochs=1, callbacks=[Leave()])
    assert (tmp_path / "run" / "checkpoint-00000001.h5").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("part", ["position", "files", "callbacks"])
def test_a_checkpoint_without_a_part_is_damaged(part, tmp_path, monkeypatch):
    train(make_run(), tmp_path, epochs=2)
    newest = str(max(tmp_path.glob("checkpoint-*")))
    state = state_file.read_state(newest)
    del state[part]
    state_file.write_state(newest, state)
    with pytest.warns(UserWarning, match="newest checkpoint is damaged"):
        assert_same(train(make_run(), tmp_path), train(make_run()))


def test_two_fits_cannot_use_one_directory(tmp_path):
    class Nested(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            with pytest.raises(RuntimeError, match="`directory` is in use by another `fit`"):
                train(make_run(), tmp_path)

    train(make_run(anew=True), tmp_path, epochs=1, callbacks=[Nested()])
    train(make_run(), tmp_path, epochs=2)  # and it is free again


def test_a_checkpoint_is_numbers_and_json(tmp_path):
    train(make_run(prioritized=True), tmp_path, epochs=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000001.h5", "lock", "rows-0-1-0.h5"]
    header = state_file.read_header(str(tmp_path / names[0]))
    assert json.loads(json.dumps(header)) == header
    assert header["position"]["epoch"] == 1
    for path in tmp_path.iterdir():
        assert b"\x80\x04\x95" not in path.read_bytes()  # the first bytes of a pickle
