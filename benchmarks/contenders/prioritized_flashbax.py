"""flashbax's prioritised item buffer on the CPU. Argument: K.

Drawing and feeding back are a jitted program each: in one program XLA copies the tree every time.
Updates are waited for once, at the end of the measurement.
"""

import flashbax
import jax
import jax.numpy as jnp
import race
from prioritized_serve import ALPHA, BETA, ROWS, Updates

EPSILON = 1e-6
jax.config.update("jax_platforms", "cpu")


class Buffer:
    def __init__(self, data, capacity):
        replay = flashbax.make_prioritised_item_buffer(
            max_length=capacity,
            min_length=ROWS,
            sample_batch_size=ROWS,
            add_batches=True,
            priority_exponent=ALPHA,
            device="cpu",
        )
        observation, number = jnp.zeros(data.shape, data.dtype), jnp.zeros(())
        item = (observation, jnp.int32(0), number, jnp.bool(False), observation)
        self.state = replay.init(item)
        self.key = jax.random.key(0)
        self.add_items = jax.jit(replay.add, donate_argnums=0)

        @jax.jit
        def sample(state, key):
            key, own_key = jax.random.split(key)
            batch = replay.sample(state, own_key)
            weights = (batch.probabilities / batch.probabilities.min()) ** -BETA
            return batch, weights, key

        def set_priorities(state, indices, td_error):
            return replay.set_priorities(state, indices, td_error.ravel() + EPSILON)

        self.sample = sample
        self.set_priorities = jax.jit(set_priorities, donate_argnums=0)

    def add(self, observation, action, reward, terminated, next_observation):
        items = (observation, action.astype("int32"), reward, terminated, next_observation)
        self.state = self.add_items(self.state, items)

    def update(self, td_errors):
        for td_error in td_errors:
            batch, _, self.key = self.sample(self.state, self.key)
            self.state = self.set_priorities(self.state, batch.indices, td_error)
        jax.block_until_ready(self.state)


race.serve(Updates(Buffer))
