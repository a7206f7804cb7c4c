"""A search of KerasTuner over agents, by `val_return`."""

import keras
import numpy as np
import pytest
from envs import ChainEnv
from td_reference import K4

from keras_dqn import (
    DQN,
    CollectTransitions,
    EpsilonGreedy,
    EvaluatePolicy,
    ReplayBuffer,
    SoftTargetUpdate,
)

keras_tuner = pytest.importorskip("keras_tuner", reason="python -m pip install keras-tuner")


class Search(keras_tuner.HyperModel):
    """The frozen agents stay at the start of the chain, the one that learns reaches its end."""

    def build(self, hp):
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
        network.set_weights([np.array([[0.1, 0.0]] * 3)])  # prefers to stay
        agent = DQN(network, double=True)
        rate = hp.Choice("learning_rate", [0.0, 0.5, 1e-9], ordered=False)
        agent.compile(keras.optimizers.SGD(rate), loss="mse", **K4)
        return agent

    def fit(self, hp, model, *args, callbacks, **kwargs):
        env = ChainEnv(length=3, time_limit=6)
        replay = ReplayBuffer.from_env(env, 500, seed=0)
        collect = CollectTransitions(
            env, replay, exploration=EpsilonGreedy(0.5), warmup_steps=60, seed=0
        )
        evaluate = EvaluatePolicy(ChainEnv(3, 6), episodes=1)
        # The tuner's own callbacks, which save the best epoch, read what ours write.
        callbacks = [collect, SoftTargetUpdate(0.1), evaluate, *callbacks]
        return model.fit(
            replay.dataset(32), *args, steps_per_epoch=60, callbacks=callbacks, **kwargs
        )


# KerasTuner 1.4.8 itself calls `threading.currentThread().getName()`.
@pytest.mark.filterwarnings(r"ignore:(currentThread|getName)\(\) is deprecated:DeprecationWarning")
def test_search_finds_the_agent_that_returns_most(tmp_path):
    tuner = keras_tuner.GridSearch(
        Search(),
        objective=keras_tuner.Objective("val_return", "max"),
        directory=tmp_path,
        project_name="chain",
    )
    tuner.search(epochs=2, verbose=0)
    trials = tuner.oracle.trials.values()
    returns = {t.hyperparameters["learning_rate"]: t.score for t in trials}
    assert returns == {0.0: 0.0, 0.5: 1.0, 1e-9: 0.0}
    assert tuner.get_best_hyperparameters()[0]["learning_rate"] == 0.5
    (best,) = tuner.get_best_models()
    assert isinstance(best, DQN)
    np.testing.assert_array_equal(best.act(np.eye(3)), [1, 1, 1])
    assert EvaluatePolicy(ChainEnv(3, 6), episodes=1).evaluate(best) == 1.0
    # The target network was saved too, and is not the online one.
    assert np.any(best.network.get_weights()[0] != best.target_network.get_weights()[0])
