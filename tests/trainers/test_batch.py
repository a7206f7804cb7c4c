import numpy as np
import pytest
import tensorflow as tf

import keras_dqn
from keras_dqn.trainers.batch import unpack_batch


def columns(**changes):
    ones = np.ones(4, np.float32)
    batch = {"action": np.zeros(4, np.int32), "reward": ones, "discount": ones}
    return {**batch, "next_observation": np.ones((4, 3), np.float32), **changes}


X = np.ones((4, 3), np.float32)


def test_a_batch_with_and_without_weights():
    assert unpack_batch((X, columns())).weight is None
    assert unpack_batch((X, columns(), 2 * np.ones(4))).weight.tolist() == [2.0] * 4
    # Keras repeats the weights of arrays for each entry of a dict.
    repeated = dict.fromkeys(columns(), np.ones(4))
    assert unpack_batch((X, columns(), repeated)).weight.tolist() == [1.0] * 4


WITHOUT_REWARD = {name: column for name, column in columns().items() if name != "reward"}
WRONG = {
    "x alone": ((X,), r"\(shape \(4, 3\)\)"),
    "no tuple": (X, r"shape \(4, 3\)"),
    "x and y": ((X, np.ones(4)), r"\(shape \(4, 3\), shape \(4,\)\)"),
    "no reward": ((X, WITHOUT_REWARD), r".*a dict of \['action', 'discount', 'next_obs"),
    "sequences": ((X, columns(reward=np.ones((4, 7)))), r"`reward` of shape \(4, 7\)"),
    "columns": ((X, columns(action=np.ones((4, 1, 1)))), r"`action` of shape \(4, 1, 1\)"),
}


@pytest.mark.parametrize(("batch", "received"), WRONG.values(), ids=WRONG)
def test_another_batch_is_refused(batch, received):
    with pytest.raises(ValueError, match=rf"A batch must be `\(observation.* Received: {received}"):
        unpack_batch(batch)


@pytest.mark.parametrize("steps_per_execution", [1, 2])
@pytest.mark.parametrize("name", ["x alone", "x and y", "no reward", "sequences"])
def test_fit_and_evaluate_refuse_it(make_agent, name, steps_per_execution):
    """A dataset of sequences `[B, T]` was once trained on as T batches, without a word."""
    agent = make_agent(steps_per_execution=steps_per_execution)
    dataset = tf.data.Dataset.from_tensors(WRONG[name][0]).repeat(2)
    before = agent.network.get_weights()
    for run in (agent.fit, agent.evaluate):
        with pytest.raises(ValueError, match=r"A batch must be `\(observation, transition, weight"):
            run(dataset, verbose=0)
    np.testing.assert_array_equal(before[0], agent.network.get_weights()[0])


def test_a_stack_is_one_because_its_dataset_says_so(make_agent):
    """`[K, B]` columns of another dataset are no stack; a `ReplayDataset` of K batches is one."""
    replay = keras_dqn.ReplayBuffer(9, *spaces())
    for step in range(8):
        replay.add(np.full(3, step), 1, 1.0, False, False, np.full(3, step + 1.0))
    agent = make_agent(steps_per_execution=2)
    agent.fit(
        replay.dataset(4).stacked(2),
        steps_per_epoch=4,
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate()],
    )
    assert int(agent.update_count) == 4
    with pytest.raises(ValueError, match="must have `num_batches` equal to `steps_per_exec"):
        agent.fit(replay.dataset(4).stacked(4), steps_per_epoch=4, verbose=0)
    mapped = replay.dataset(4).stacked(2).map(lambda *batch: batch)
    with pytest.raises(ValueError, match=r"`reward` of shape \(2, 4\)"):
        agent.fit(mapped, steps_per_epoch=4, verbose=0)


def spaces():
    import gymnasium as gym

    return gym.spaces.Box(-99.0, 99.0, (3,)), gym.spaces.Discrete(2)
