"""What layers add to the loss: the online network's terms once, the target network's never."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from td_reference import Reference, each_kind, sgd

from keras_dqn import SoftTargetUpdate


class Activity(keras.layers.Layer):
    """Hands its inputs on and adds their mean square, of the whole batch, to the loss."""

    def call(self, inputs):
        self.add_loss(0.5 * keras.ops.mean(inputs**2))
        return inputs


def regularized():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.1)),
            keras.layers.Dense(2, bias_regularizer=keras.regularizers.L2(0.2)),
        ]
    )


def squared_weights(network, observation):
    kernel, _, _, bias = network.weights
    return 0.1 * tf.reduce_sum(kernel**2) + 0.2 * tf.reduce_sum(bias**2)


def with_added_loss():
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5, "tanh"), Activity(), keras.layers.Dense(2)]
    )


def squared_activity(network, observation):
    kernel, bias, _, _ = network.weights
    return 0.5 * tf.reduce_mean(tf.tanh(tf.matmul(observation, kernel) + bias) ** 2)


KINDS = {
    "double, add_loss": (True, with_added_loss, squared_activity),
    "double, L2": (True, regularized, squared_weights),
    "dqn, add_loss": (False, with_added_loss, squared_activity),
    "dqn, L2": (False, regularized, squared_weights),
}


@each_kind(KINDS)
def test_added_terms(make_agent, make_batches, as_dataset, kind, execution):
    double, network, added = KINDS[kind]
    batches = make_batches(8)
    agent = make_agent(network(), double=double, loss="mse", **execution)
    reference = Reference(agent, added).run(batches, sgd(0.1))
    history = agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)]).history
    assert history["loss"] == [pytest.approx(np.mean(reference.losses), rel=1e-4)]
    reference.check(agent)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_reports_them_too(make_agent, make_batches, as_dataset, kind):
    double, network, added = KINDS[kind]
    (batch,) = make_batches()
    agent = make_agent(network(), double=double, loss="mse", jit_compile=False)
    td_loss = np.mean(batch[2] * agent.td_errors(batch) ** 2)
    loss = agent.evaluate(as_dataset([batch]), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(td_loss + float(added(agent.network, batch[0])), rel=1e-5)
