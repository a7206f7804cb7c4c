"""Nonsense is refused where it is given, by a `TypeError` or `ValueError` that names it."""

import inspect
import math

import gymnasium as gym
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_dqn

SPACE, ACTIONS = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)
FRAMES = gym.spaces.Box(0, 255, (36, 36, 1), "uint8")


def network():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def replay():
    buffer = keras_dqn.ReplayBuffer(20, SPACE, ACTIONS)
    buffer.add(np.zeros(3), 0, 0.0, True, False, np.zeros(3))
    return buffer


def agent():
    dqn = keras_dqn.DQN(network())
    dqn.compile("sgd")
    return dqn


def collect(**kwargs):
    env = gym.make("CartPole-v1")
    buffer = keras_dqn.ReplayBuffer.from_env(env, 50)
    arguments = {"exploration": keras_dqn.Greedy(), **kwargs}
    return keras_dqn.CollectTransitions(env, buffer, **arguments)


CASES = {
    "exploration=0.1": (lambda: collect(exploration=0.1), TypeError, "`exploration` must be an"),
    "exploration class": (
        lambda: collect(exploration=keras_dqn.Greedy),
        TypeError,
        "`exploration` must be an",
    ),
    "double": (lambda: keras_dqn.DQN(network(), double="no"), TypeError, "`double` must be True"),
    "n_step": (lambda: replay().sample(4, n_step=1.5), ValueError, "`n_step` must be an integer"),
    "batch_size": (
        lambda: replay().dataset(True),
        TypeError,
        "`batch_size` must be an integer",
    ),
    "decay_steps": (
        lambda: keras_dqn.LinearSchedule(1.0, 0.1, math.nan),
        ValueError,
        "`decay_steps` must be at least 1",
    ),
    "steps_per_execution": (
        lambda: keras_dqn.DQN(network()).compile(steps_per_execution=0),
        ValueError,
        "`steps_per_execution` must be at least 1",
    ),
    "steps_per_epoch": (
        lambda: agent().fit(replay().dataset(4), steps_per_epoch=0),
        ValueError,
        "`steps_per_epoch` must be at least 1",
    ),
    "Policy(3)": (lambda: keras_dqn.Policy(3), TypeError, "`model` must be a DQN or another"),
    "soft_update": (
        lambda: keras_dqn.soft_update(3, network(), 0.5),
        TypeError,
        "`source` must be a Keras model or layer",
    ),
    "fit(replay)": (
        lambda: agent().fit(replay(), steps_per_epoch=2),
        TypeError,
        r"`x` must be a dataset: `replay.dataset\(",
    ),
    "predict": (
        lambda: agent().predict(replay().dataset(8)),
        ValueError,
        "`steps` must be given: the dataset is endless",
    ),
    "two outputs": (
        lambda: keras_dqn.DQN(two_outputs()).act(np.zeros((1, 3))),
        ValueError,
        r"`network` must map .* outputs of shape \[\(1, 2\), \(1, 1\)\]",
    ),
    "tau": (lambda: keras_dqn.SoftTargetUpdate("x"), TypeError, "`tau` must be a number"),
    "capacity": (
        lambda: keras_dqn.ReplayBuffer(1.5, SPACE, ACTIONS),
        ValueError,
        "`capacity` must be an integer",
    ),
}


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(1)(inputs)])


@pytest.mark.parametrize(("call", "error", "match"), CASES.values(), ids=CASES)
def test_nonsense_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_numpys_integers_are_integers():
    buffer = keras_dqn.ReplayBuffer(np.int64(100), SPACE, ACTIONS, seed=np.int64(3))
    assert buffer.get_config() == {"capacity": 100, "num_envs": 1, "frame_stack": None, "seed": 3}
    assert {type(buffer.get_config()[name]) for name in ("capacity", "seed")} == {int}
    collect(seed=np.int64(3), warmup_steps=np.int32(4))


def test_an_empty_buffer_is_named_with_its_remedy():
    collector = collect(warmup_steps=0, env_steps_per_update=0.25)
    dqn = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    dqn.compile("sgd")
    with pytest.raises(RuntimeError, match=r"The replay buffer is empty.*`warmup_steps` above 0"):
        dqn.fit(collector.replay.dataset(4), steps_per_epoch=2, callbacks=[collector], verbose=0)


# Generated arguments

NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.sampled_from([np.nan, np.inf, -np.inf, np.float32(0.5), np.int64(3), np.zeros(2), object()]),
    st.sampled_from([int, keras_dqn.Greedy, lambda x: x, gym.spaces.Discrete(3), 1j]),
)


def env():
    return gym.make("CartPole-v1")


CALLABLES = {
    "LinearSchedule": (
        keras_dqn.LinearSchedule,
        lambda: {"initial_value": 1.0, "end_value": 0.1, "decay_steps": 10},
    ),
    "ExponentialSchedule": (
        keras_dqn.ExponentialSchedule,
        lambda: {"initial_value": 1.0, "decay_rate": 0.9, "end_value": 0.1, "unit": "steps"},
    ),
    "EpsilonGreedy": (keras_dqn.EpsilonGreedy, lambda: {"epsilon": 0.1}),
    "Boltzmann": (keras_dqn.Boltzmann, lambda: {"temperature": 1.0}),
    "ReplayBuffer": (
        keras_dqn.ReplayBuffer,
        lambda: {
            "capacity": 20,
            "observation_space": SPACE,
            "action_space": ACTIONS,
            "num_envs": 1,
            "frame_stack": None,
            "storage": "memory",
            "directory": None,
            "seed": 0,
        },
    ),
    "PrioritizedReplayBuffer": (
        keras_dqn.PrioritizedReplayBuffer,
        lambda: {
            "capacity": 20,
            "observation_space": SPACE,
            "action_space": ACTIONS,
            "alpha": 0.6,
            "beta": 0.4,
            "epsilon": 1e-6,
            "variant": "rank",
        },
    ),
    "sample": (
        lambda **kwargs: replay().sample(**kwargs),
        lambda: {"batch_size": 4, "gamma": 0.9, "n_step": 1, "num_batches": None},
    ),
    "dataset": (
        lambda **kwargs: replay().dataset(**kwargs),
        lambda: {"batch_size": 4, "gamma": 0.9, "n_step": 1},
    ),
    "add": (
        lambda **kwargs: replay().add(**kwargs),
        lambda: {
            "observation": np.zeros(3),
            "action": 0,
            "reward": 0.0,
            "terminated": False,
            "truncated": False,
            "next_observation": np.zeros(3),
        },
    ),
    "CollectTransitions": (
        lambda **kwargs: collect(**kwargs),
        lambda: {
            "exploration": keras_dqn.Greedy(),
            "env_steps_per_update": 1,
            "warmup_steps": 5,
            "overlap": False,
            "seed": 0,
        },
    ),
    "Collector": (
        lambda **kwargs: keras_dqn.Collector(**kwargs),
        lambda: (
            {"env": env(), "replay": cartpole(), "exploration": keras_dqn.Greedy()}
            | {"seed": 0, "action_mask": None}
        ),
    ),
    "ActionMaskObservation": (keras_dqn.ActionMaskObservation, lambda: {"env": env()}),
    "EvaluatePolicy": (
        keras_dqn.EvaluatePolicy,
        lambda: {
            "env": env(),
            "episodes": 2,
            "validation_freq": 1,
            "max_episode_steps": None,
            "exploration": None,
            "seed": 0,
        },
    ),
    "SoftTargetUpdate": (
        keras_dqn.SoftTargetUpdate,
        lambda: {"tau": 0.1, "update_freq": 1, "source": None, "target": None},
    ),
    "TrainingCheckpoint": (
        keras_dqn.TrainingCheckpoint,
        lambda: {
            "directory": "run",
            "max_to_keep": 2,
            "save_freq": "epoch",
            "include_replay": True,
        },
    ),
    "soft_update": (
        keras_dqn.soft_update,
        lambda: {"source": network(), "target": network(), "tau": 0.1},
    ),
    "Policy": (keras_dqn.Policy, lambda: {"model": network()}),
    "DQN": (
        keras_dqn.DQN,
        lambda: (
            {"network": network(), "double": False, "munchausen": None, "conservative": 0.0}
            | {"action_mask": None}
        ),
    ),
    "CategoricalDQN": (
        keras_dqn.CategoricalDQN,
        lambda: {"network": network(), "num_atoms": 3, "v_min": -1.0, "v_max": 1.0},
    ),
    "FittedQEvaluation": (
        keras_dqn.FittedQEvaluation,
        lambda: {"network": network(), "agent": keras_dqn.DQN(network()), "conservative": 0.1},
    ),
    "HLGaussDQN": (
        keras_dqn.HLGaussDQN,
        lambda: {
            "network": network(),
            "num_bins": 3,
            "v_min": -1.0,
            "v_max": 1.0,
            "sigma_ratio": 0.75,
        },
    ),
    "QuantileDQN": (
        keras_dqn.QuantileDQN,
        lambda: {"network": network(), "num_quantiles": 3, "double": True},
    ),
    "ImplicitQuantileDQN": (
        keras_dqn.ImplicitQuantileDQN,
        lambda: {
            "torso": network(),
            "head": keras.layers.Dense(2),
            "num_cosines": 2,
            "num_quantiles": 2,
            "num_target_quantiles": 2,
            "risk": None,
            "seed": 0,
        },
    ),
    "Munchausen": (
        keras_dqn.Munchausen,
        lambda: {"alpha": 0.9, "temperature": 0.03, "clip": -1.0},
    ),
    "EpsilonZGreedy": (
        keras_dqn.EpsilonZGreedy,
        lambda: {"epsilon": 0.1, "mu": 2.0, "max_duration": 10},
    ),
    "NoisyDense": (
        keras_dqn.layers.NoisyDense,
        lambda: {"units": 2, "use_bias": True, "sigma0": 0.5, "seed": 0},
    ),
    "DuelingHead": (
        keras_dqn.layers.DuelingHead,
        lambda: {
            "num_actions": 2,
            "num_outputs": 1,
            "aggregate": "mean",
            "hidden_units": None,
            "noisy": False,
        },
    ),
    "CosineEmbedding": (
        keras_dqn.layers.CosineEmbedding,
        lambda: {"units": 2, "num_cosines": 4},
    ),
    "QuantileHuber": (keras_dqn.losses.QuantileHuber, lambda: {"kappa": 1.0}),
    "mlp": (
        keras_dqn.networks.mlp,
        lambda: {
            "observation_space": SPACE,
            "num_outputs": 2,
            "hidden_units": (4,),
            "layer_normalization": False,
        },
    ),
    "nature_cnn": (
        keras_dqn.networks.nature_cnn,
        lambda: {
            "observation_space": FRAMES,
            "num_outputs": 2,
            "hidden_units": 4,
            "layer_normalization": False,
        },
    ),
    "impala_cnn": (
        keras_dqn.networks.impala_cnn,
        lambda: {
            "observation_space": FRAMES,
            "num_outputs": 2,
            "width": 1,
            "hidden_units": 4,
            "spectral_normalization": False,
            "max_pooling": None,
        },
    ),
    "minatar_cnn": (
        keras_dqn.networks.minatar_cnn,
        lambda: {
            "observation_space": FRAMES,
            "num_outputs": 2,
            "hidden_units": 4,
            "layer_normalization": False,
        },
    ),
    "PriorityFeedback": (
        keras_dqn.PriorityFeedback,
        lambda: {"replay": keras_dqn.PrioritizedReplayBuffer(9, SPACE, ACTIONS)},
    ),
    "LearningCurve": (keras_dqn.LearningCurve, lambda: {"path": "curve.png"}),
    "ReplayDataset": (
        keras_dqn.ReplayDataset,
        lambda: {
            "replay": replay(),
            "batch_size": 4,
            "gamma": 0.9,
            "n_step": 1,
            "num_batches": None,
        },
    ),
    "from_env": (
        keras_dqn.ReplayBuffer.from_env,
        lambda: {"env": env(), "capacity": 20, "seed": 0},
    ),
    "update_priorities": (
        lambda **kwargs: prioritized().update_priorities(**kwargs),
        lambda: {"keys": np.zeros(2, np.int64), "td_error": np.ones(2)},
    ),
    "update_target": (lambda **kwargs: agent().update_target(**kwargs), lambda: {"tau": 0.5}),
    "compile": (
        lambda **kwargs: keras_dqn.DQN(network()).compile(**kwargs),
        lambda: {"steps_per_execution": 2},
    ),
    "warm_up": (
        lambda **kwargs: keras_dqn.Collector(
            env(), cartpole(), exploration=keras_dqn.Greedy()
        ).warm_up(**kwargs),
        lambda: {"num_steps": 3},
    ),
}


# Of weights and of distributions.
SIZES = {"hidden_units", "max_pooling", "num_actions", "num_atoms", "num_bins", "num_cosines"}
SIZES |= {"num_outputs", "num_quantiles", "num_target_quantiles", "units", "width"}


def prioritized():
    buffer = keras_dqn.PrioritizedReplayBuffer(20, SPACE, ACTIONS)
    buffer.add(np.zeros(3), 0, 0.0, True, False, np.zeros(3))
    return buffer


def cartpole():
    return keras_dqn.ReplayBuffer.from_env(env(), 20)


def refusals(name, data):
    """Calls with one argument replaced; returns None if it was taken, else whether it is named."""
    call, valid = CALLABLES[name]
    arguments = valid()
    argument = data.draw(st.sampled_from(sorted(arguments)))
    value = data.draw(NONSENSE)
    arguments[argument] = value
    large = ("capacity", "batch_size", "num_batches", "num_steps", "steps_per_execution")
    if (argument in large and is_large(value, 10**5)) or (
        argument in SIZES and is_large(value, 64)
    ):
        return None  # it asks for memory, which it may get
    try:
        call(**arguments)
    except (TypeError, ValueError) as error:
        return f"`{argument}`" in str(error), argument, value, error
    except MemoryError:
        return None
    return None


def is_large(value, limit):
    return isinstance(value, (int, float)) and value > limit


def run(name, examples):
    seen = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def generated(data):
        seen.append(refusals(name, data))

    generated()
    refused = [one for one in seen if one is not None]
    unnamed = [one for one in refused if not one[0]]
    return refused, unnamed


@pytest.mark.parametrize("name", CALLABLES)
def test_generated_nonsense(name):
    """A small sample; `python -m pytest -m hard` runs 300 examples of each, over 5,000 in all."""
    refused, unnamed = run(name, 15)
    assert len(unnamed) <= max(1, len(refused) // 20), unnamed[:3]


@pytest.mark.hard
def test_generated_nonsense_in_full():
    refused, unnamed = [], []
    for name in CALLABLES:
        more_refused, more_unnamed = run(name, 300)
        refused += more_refused
        unnamed += [(name, *one[1:]) for one in more_unnamed]
    print(f"{len(refused)} refusals, {len(unnamed)} of them do not name the argument")
    assert len(refused) > 2_000
    assert len(unnamed) <= len(refused) / 100, unnamed[:10]


def test_every_public_constructor_is_tried():
    constructors = {
        name
        for name in keras_dqn.__all__
        if inspect.isclass(getattr(keras_dqn, name))
        and len(inspect.signature(getattr(keras_dqn, name)).parameters)
    }
    assert constructors <= set(CALLABLES)
