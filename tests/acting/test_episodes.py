"""Which episodes count, against a list that is played by hand."""

import numpy as np

from keras_dqn.acting.environment_stepper import Step
from keras_dqn.acting.episodes import Episodes


def step(rewards, terminated, stepped=None):
    rewards, terminated = np.array(rewards, float), np.array(terminated)
    none = np.zeros(len(rewards), bool)
    stepped = np.ones(len(rewards), bool) if stepped is None else np.array(stepped)
    return Step(None, None, rewards, terminated, none, None, stepped)


def test_each_environment_plays_its_share():
    episodes = Episodes(2, 3, None)  # the first environment two, the second one
    for _ in range(3):
        episodes.add(step([1.0, 10.0], [True, False]))
    assert episodes.returns == [1.0, 1.0]
    assert not episodes.done
    for _ in range(2):
        episodes.add(step([1.0, 10.0], [False, True]))
    assert episodes.returns == [1.0, 1.0, 40.0]
    assert episodes.lengths == [1, 1, 4]
    assert episodes.done


def test_a_row_that_resets_does_not_count():
    episodes = Episodes(1, 1, None)
    episodes.add(step([100.0], [False], [False]))
    episodes.add(step([1.0], [True]))
    assert (episodes.returns, episodes.lengths) == ([1.0], [1])


def test_episodes_over_the_limit_are_cut():
    episodes = Episodes(1, 2, 3)
    for _ in range(3):
        episodes.add(step([1.0], [False]))
    assert (episodes.returns, episodes.lengths) == ([3.0], [3])
    assert episodes.wait_for_reset
    episodes.add(step([50.0], [False]))  # of the episode that was cut
    episodes.start_anew()
    assert not episodes.wait_for_reset
    episodes.add(step([2.0], [True]))
    assert episodes.returns == [3.0, 2.0]
    assert not episodes.wait_for_reset


def test_an_environment_that_was_cut_counts_again_from_its_next_episode():
    episodes = Episodes(2, 4, 2)
    episodes.add(step([1.0, 1.0], [False, True]))
    episodes.add(step([1.0, 1.0], [False, True]))
    assert (episodes.returns, episodes.lengths) == ([1.0, 2.0, 1.0], [1, 2, 1])
    assert episodes.wait_for_reset  # the first was cut, the second has played its share
    episodes.add(step([9.0, 9.0], [True, False]))  # the end of what was cut
    assert not episodes.wait_for_reset
    episodes.add(step([5.0, 9.0], [True, False]))
    assert episodes.returns[-1] == 5.0
    assert episodes.done


def test_an_end_at_the_limit_counts_once():
    episodes = Episodes(1, 2, 2)
    episodes.add(step([1.0], [False]))
    episodes.add(step([1.0], [True]))
    episodes.add(step([1.0], [True]))
    assert (episodes.returns, episodes.lengths) == ([2.0, 1.0], [2, 1])
