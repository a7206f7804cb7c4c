from collections import OrderedDict

import keras
import numpy as np
import pytest

from keras_dqn.acting.observations import leaves_of, with_leaves

NESTED = {
    "array": np.zeros(2),
    "dict": {"b": 1, "a": 2},
    "tuple": (1, 2),
    "list": [1, 2],
    "nested": {"z": (1, {"y": 2, "x": [3, 4]}), "a": 5, "B": ({"c": 6},)},
    "empty": {"b": (), "a": {}},
}


@pytest.mark.parametrize("observation", NESTED.values(), ids=NESTED)
def test_leaves_have_the_order_of_keras_tree(observation):
    assert [id(leaf) for leaf in leaves_of(observation)] == [
        id(leaf) for leaf in keras.tree.flatten(observation)
    ]


@pytest.mark.parametrize("observation", NESTED.values(), ids=NESTED)
def test_other_leaves_have_the_same_structure(observation):
    leaves = [f"leaf {i}" for i in range(len(leaves_of(observation)))]
    other = with_leaves(observation, iter(leaves))
    assert other == keras.tree.pack_sequence_as(observation, leaves)
    assert type(other) is (str if isinstance(observation, np.ndarray) else type(observation))


def test_a_dict_in_another_order_has_the_same_leaves():
    observation = OrderedDict(b=1, a=2)
    assert leaves_of(observation) == [2, 1]
    assert with_leaves(observation, iter(["two", "one"])) == {"a": "two", "b": "one"}
