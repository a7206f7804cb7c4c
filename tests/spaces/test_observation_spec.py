import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from keras_dqn.spaces.observation_spec import ObservationSpec, add_axis

NESTED = Dict(
    {
        "camera": Box(0, 255, (4, 4, 3), np.uint8),
        "body": Dict({"joints": Box(-1.0, 1.0, (2,)), "gear": Discrete(3, start=1)}),
    }
)

SPACES = {
    "box": (Box(-1.0, 1.0, (3, 2)), np.float32, (3, 2)),
    "double": (Box(-1.0, 1.0, (3,), np.float64), np.float64, (3,)),
    "scalar": (Box(-1.0, 1.0, ()), np.float32, ()),
    "image": (Box(0, 255, (4, 4, 1), np.uint8), np.uint8, (4, 4, 1)),
    "discrete": (Discrete(5, start=-2), np.int32, ()),
    "binary": (MultiBinary(4), np.int8, (4,)),
    "multi_discrete": (MultiDiscrete([3, 4], start=[1, 0]), np.int64, (2,)),
}


@pytest.mark.parametrize(("space", "dtype", "shape"), SPACES.values(), ids=SPACES.keys())
def test_samples_of_a_space_keep_dtype_and_values(space, dtype, shape):
    space.seed(0)
    observation = np.stack([space.sample() for _ in range(50)])
    (array,) = ObservationSpec(space).check("observation", observation, 50)
    assert array.dtype == dtype
    assert array.shape == (50, *shape)
    np.testing.assert_array_equal(array, observation)


def test_nested_dict_is_flattened_and_packed_again():
    NESTED.seed(0)
    observation = add_axis(NESTED.sample())
    layout = ObservationSpec(NESTED)
    packed = layout.pack(layout.check("observation", observation, 1))
    assert packed.keys() == {"camera", "body"}
    assert packed["body"].keys() == {"joints", "gear"}
    assert packed["camera"].dtype == np.uint8
    assert packed["body"]["gear"].dtype == np.int32
    np.testing.assert_array_equal(packed["camera"], observation["camera"])
    np.testing.assert_array_equal(packed["body"]["joints"], observation["body"]["joints"])
    np.testing.assert_array_equal(packed["body"]["gear"], observation["body"]["gear"])


@pytest.mark.parametrize(
    ("space", "where"),
    [
        (Text(3), r"observation_space=Text"),
        (Tuple([Discrete(2), Text(3)]), r"observation_space\[1\]=Text"),
        (Dict({"a": Dict({"b": Text(3)})}), r"observation_space\['a'\]\['b'\]=Text"),
    ],
    ids=["text", "tuple", "nested"],
)
def test_other_spaces_are_refused(space, where):
    with pytest.raises(ValueError, match=where):
        ObservationSpec(space)


REFUSED = {
    "shape": (Box(-1, 1, (2,)), np.zeros((1, 3)), r"`x` must have shape \(1, 2\)"),
    "no_axis": (Box(-1, 1, (2,)), np.zeros(2), r"Received: shape=\(2,\)"),
    "envs": (Box(-1, 1, (2,)), np.zeros((2, 2)), r"Received: shape=\(2, 2\)"),
    "float_for_uint8": (Box(0, 255, (1,), np.uint8), np.ones((1, 1)), "casts to uint8"),
    "float_for_discrete": (Discrete(3), np.ones(1), "casts to int32"),
    "complex": (Box(-1, 1, (1,)), np.ones((1, 1), complex), "dtype=complex128"),
    "text": (Box(-1, 1, (1,)), np.array([["a"]]), "casts to float32"),
    "nan": (Box(-np.inf, np.inf, (1,)), [[np.nan]], "`x` must be finite"),
    "nan_in_bounds": (Box(-1, 1, (2,)), [[0.0, np.nan]], "must be finite"),
    "infinite": (Box(-np.inf, np.inf, (1,)), [[-np.inf]], "must be finite"),
    "infinite_in_float32": (Box(-np.inf, np.inf, (1,)), [[1e300]], "must be finite"),
    "below_discrete": (Discrete(3, start=1), [0], "must be in Discrete"),
    "above_discrete": (Discrete(3, start=1), [4], "must be in Discrete"),
    "multi_discrete": (MultiDiscrete([2, 3]), [[1, 3]], "must be in MultiDiscrete"),
    "binary": (MultiBinary(2), np.array([[0, 2]], np.int8), "must be in MultiBinary"),
    "wraps": (Box(-9, 9, (1,), np.int8), np.array([[257]]), "`x` must fit into int8"),
    "nested": (
        Dict({"a": Dict({"b": Box(-1, 1, (1,))})}),
        {"a": {"b": [[np.inf]]}},
        r"`x\['a'\]\['b'\]` must be finite",
    ),
    "not_a_dict": (Dict({"a": Discrete(2)}), [0], r"`x` must be a dict with the keys \['a'\]"),
    "keys": (Dict({"a": Discrete(2)}), {"b": [0]}, r"Received: \['b'\]"),
}


@pytest.mark.parametrize(("space", "value", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(space, value, message):
    with pytest.raises(ValueError, match=message):
        ObservationSpec(space).check("x", value, 1)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (Box(-np.inf, np.inf, (2,)), [[1e38, -1e38]]),
        (Box(-np.inf, 5.0, (2,)), [[-1e38, 5.0]]),
        (Box(0.0, 0.7, (1,)), [[0.7]]),  # above 0.7 in float32, until it is cast
        (Box(0, 255, (1,), np.uint8), np.array([[255]], np.uint8)),
        (Box(0, 9, (1,), np.int64), np.array([[9]], np.int8)),
        (Box(-1, 1, (2,)), [[True, False]]),
    ],
    ids=["unbounded", "half_bounded", "rounding", "uint8", "wider", "bool"],
)
def test_numbers_on_the_bounds_are_taken_without_a_warning(space, value):
    (array,) = ObservationSpec(space).check("x", value, 1)
    assert array.dtype == space.dtype
    np.testing.assert_array_equal(array, np.asarray(value, space.dtype))


@pytest.mark.parametrize(
    ("space", "outside"),
    [
        (Box(-1, 1, (2,)), np.array([[0, 3]], np.float32)),
        (Box(-1, 1, (2,), np.int16), np.array([[-3, 0]], np.int16)),
        (Box(5, 255, (2,), np.uint8), np.array([[9, 0]], np.uint8)),
        (Box(0, 9, (2,), np.uint8), np.array([[9, 10]], np.uint8)),
    ],
    ids=["float", "int", "below_uint8", "above_uint8"],
)
def test_numbers_outside_a_box_are_kept_with_one_warning(space, outside):
    layout = ObservationSpec(space)
    with pytest.warns(UserWarning, match="`x` is outside the bounds of Box"):
        (array,) = layout.check("x", outside, 1)
    np.testing.assert_array_equal(array, outside)
    layout.check("x", outside, 1)


def test_an_entry_without_numbers():
    space = Dict(nothing=Box(0, 1, (0,), np.uint8), one=Box(0, 1, (1,), np.uint8))
    observation = {"nothing": np.zeros((2, 0), np.uint8), "one": np.ones((2, 1), np.uint8)}
    arrays = ObservationSpec(space).check("x", observation, 2)
    assert [array.shape for array in arrays] == [(2, 0), (2, 1)]
