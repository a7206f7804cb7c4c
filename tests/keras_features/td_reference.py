"""A slow reference of a whole run: one eager update at a time, the optimizer's part in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

K1 = {"steps_per_execution": 1, "jit_compile": False}
K4 = {"steps_per_execution": 4, "jit_compile": False}
K4_XLA = {"steps_per_execution": 4, "jit_compile": True}
in_executions = pytest.mark.parametrize("execution", [K1, K4], ids=["K=1", "K=4"])
# XLA takes a second to compile: only where a feature has a branch or a random draw of its own.
in_executions_with_xla = pytest.mark.parametrize("execution", [K1, K4_XLA], ids=["K=1", "K=4, XLA"])


def each_kind(kinds, several=K4):
    """Parametrizes `kind` with all, in executions of several updates, and the first at K=1 too.

    Each case costs a second of compiling, and one update is compiled as a loop of one.
    """
    cases = [*((kind, several) for kind in kinds), (next(iter(kinds)), K1)]
    ids = [f"{kind}-K={execution['steps_per_execution']}" for kind, execution in cases]
    return pytest.mark.parametrize(("kind", "execution"), cases, ids=ids)


class Reference:
    """Copies of an agent's two networks, trained beside it on the same batches.

    Args:
        agent: The agent, before it is trained.
        added: Function of the online network and the observations that returns what its layers add
            to the loss. Defaults to one that returns 0.
    """

    def __init__(self, agent, added=lambda network, observation: 0.0):
        self.double = agent.double
        self.network, self.target_network = (
            copy_of(network) for network in (agent.network, agent.target_network)
        )
        self.added = added
        self.updates = int(agent.update_count)
        self.losses = []

    def run(self, batches, step, tau=0.3, update_freq=1):
        """Updates on each batch; `step(weights, gradients, update)` gives the new weights."""
        variables = self.network.trainable_variables
        for batch in batches:
            gradients = self.gradients(batch)
            # Read after the forward pass, in which spectral normalisation writes its kernel.
            weights = [variable.numpy() for variable in variables]
            for variable, new in zip(
                variables, step(weights, gradients, self.updates), strict=True
            ):
                variable.assign(new)
            self.updates += 1
            if self.updates % update_freq == 0:
                self.blend(tau)
        return self

    def gradients(self, batch):
        """Returns the gradients of the mean of weight * (target - prediction)^2, in NumPy."""
        observation, transition, weight = batch
        next_observation = transition["next_observation"]
        next_values = self.target_network(next_observation, training=False).numpy()
        chooser = next_values
        if self.double:
            chooser = self.network(next_observation, training=False).numpy()
        rows = np.arange(len(weight))
        next_value = next_values[rows, chooser.argmax(-1)]
        target = transition["reward"] + transition["discount"] * next_value
        with tf.GradientTape() as tape:
            values = self.network(observation, training=True)
            prediction = tf.gather(values, transition["action"], batch_dims=1)
            loss = tf.reduce_mean(weight * (target - prediction) ** 2)
            loss += self.added(self.network, observation)
        self.losses.append(float(loss))
        return [g.numpy() for g in tape.gradient(loss, self.network.trainable_variables)]

    def blend(self, tau):
        trainable = {id(variable) for variable in self.network.trainable_variables}
        for online, target in zip(self.network.weights, self.target_network.weights, strict=True):
            blended = target.numpy() + tau * (online.numpy() - target.numpy())
            target.assign(blended if id(online) in trainable else online.numpy())

    def check(self, agent, atol=1e-5):
        """Asserts that both networks of the agent came to the same weights, which differ."""
        assert int(agent.update_count) == self.updates
        for name in ("network", "target_network"):
            expected, received = (getattr(of, name).get_weights() for of in (self, agent))
            for a, b in zip(expected, received, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=atol, err_msg=name)
        pairs = zip(agent.network.weights, agent.target_network.weights, strict=True)
        assert any(np.any(a.numpy() != b.numpy()) for a, b in pairs)


def copy_of(network):
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def sgd(learning_rate, change=lambda gradients: gradients):
    """Returns the step of gradient descent on gradients that were changed, by clipping say."""
    return lambda weights, gradients, update: [
        w - learning_rate * g for w, g in zip(weights, change(gradients), strict=True)
    ]
