import pytest

from keras_dqn import ExponentialSchedule, LinearSchedule


@pytest.mark.parametrize(
    ("step", "value"),
    # 1.0 + (0.2 - 1.0) * step / 400
    [(0, 1.0), (1, 0.998), (100, 0.8), (399, 0.202), (400, 0.2), (10**9, 0.2)],
)
def test_linear_schedule(step, value):
    assert LinearSchedule(1.0, 0.2, 400)(step) == pytest.approx(value, abs=1e-12)


def test_linear_schedule_hits_both_ends_exactly_and_may_rise():
    schedule = LinearSchedule(0.1, 0.7, 3)
    assert (schedule(0), schedule(3)) == (0.1, 0.7)
    assert schedule(1) == pytest.approx(0.3)


def test_exponential_schedule_equals_the_loop_of_the_tutorials():
    schedule = ExponentialSchedule(1.0, 0.995, 0.01, unit="episodes")
    epsilon = 1.0
    for episode in range(2_000):
        assert schedule(episode) == pytest.approx(epsilon, rel=1e-9)
        epsilon = max(epsilon * 0.995, 0.01)
    assert schedule(2_000) == 0.01


@pytest.mark.parametrize(("count", "value"), [(0, 0.8), (1, 0.4), (3, 0.1), (4, 0.1), (10**6, 0.1)])
def test_exponential_schedule(count, value):
    assert ExponentialSchedule(0.8, 0.5, 0.1)(count) == pytest.approx(value)


def test_values_are_plain_floats():
    assert type(LinearSchedule(1, 0, 10)(3)) is float
    assert type(ExponentialSchedule(1, 0.5)(3)) is float


def test_units():
    assert LinearSchedule(1.0, 0.0, 1).unit == "steps"
    assert ExponentialSchedule(1.0, 0.5).unit == "steps"
    assert ExponentialSchedule(1.0, 0.5, unit="episodes").unit == "episodes"


@pytest.mark.parametrize("decay_steps", [0, -1])
def test_linear_schedule_refuses(decay_steps):
    with pytest.raises(ValueError, match=r"`decay_steps` must be at least 1.*Received.*\d"):
        LinearSchedule(1.0, 0.0, decay_steps)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"decay_rate": 0.0}, r"`decay_rate` must be in \(0, 1\]"),
        ({"decay_rate": 1.5}, r"`decay_rate` must be.*Received: decay_rate=1.5"),
        ({"decay_rate": float("nan")}, "`decay_rate` must be"),
        ({"decay_rate": 0.5, "unit": "epochs"}, '`unit` must be "steps" or "episodes"'),
    ],
    ids=["zero", "above one", "nan", "unit"],
)
def test_exponential_schedule_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        ExponentialSchedule(1.0, **arguments)
