"""Rows of a buffer in segments: each checkpoint restores exactly, and writes only new rows."""

import numpy as np
import pytest

from keras_dqn import hdf5
from keras_dqn.saving import row_segments
from keras_dqn.saving.row_segments import RingRows, files_of, load_rows, save_rows


class Rings:
    """A stand-in for the rings of a buffer: appends rows and may change the last one's flags."""

    def __init__(self, num_envs, num_rows, seed=0):
        self.rng = np.random.default_rng(seed)
        self.size = num_rows + 1
        slots = num_envs * self.size
        self.arrays = {
            "observation0": np.zeros((slots, 3), np.float32),
            "flags": np.zeros(slots, np.uint8),
        }
        self.heads = [0] * num_envs

    def append(self, most):
        for env in range(len(self.heads)):
            if self.heads[env]:
                before = env * self.size + (self.heads[env] - 1) % self.size
                self.arrays["flags"][before] |= self.rng.integers(0, 2)  # truncated after all
            for _ in range(self.rng.integers(0, most + 1)):
                slot = env * self.size + self.heads[env] % self.size
                self.arrays["observation0"][slot] = self.rng.random(3)
                self.arrays["flags"][slot] = self.rng.integers(0, 8)
                self.heads[env] += 1
                after = env * self.size + self.heads[env] % self.size
                self.arrays["observation0"][after] = self.rng.random(3)

    def rows(self):
        return RingRows(self.arrays, self.heads)

    def stored(self):
        """All stored rows and the observation in the head's slot, as a slow oracle reads them."""
        seen = []
        for env, head in enumerate(self.heads):
            for row in range(max(0, head - self.size + 1), head + 1):
                slot = env * self.size + row % self.size
                observation = self.arrays["observation0"][slot].tolist()
                flags = int(self.arrays["flags"][slot]) if row < head else None
                seen.append((env, row, observation, flags))
        return seen


def loaded(directory, like, heads, segments):
    """Reads segments into an empty buffer of the same size."""
    other = Rings(len(heads), like.size - 1)
    other.heads = list(heads)
    load_rows(directory, other.rows(), segments)
    return other.stored()


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("most", [1, 7, 60], ids=lambda most: f"{most} rows")
def test_each_checkpoint_and_the_one_before_restore_exactly(num_envs, most, tmp_path, monkeypatch):
    monkeypatch.setattr(row_segments, "_FEWEST_BYTES", 8 * 13)
    rings, segments, before = Rings(num_envs, 40), [], None
    for number in range(25):
        rings.append(most)
        segments = save_rows(tmp_path, f"rows-0-{number}", rings.rows(), segments)
        now = (list(rings.heads), segments, rings.stored())
        for heads, saved, expected in (now, before or now):
            assert loaded(tmp_path, rings, heads, saved) == expected
        before = now


def test_only_new_rows_are_written(tmp_path):
    rings = Rings(1, 100_000)
    rings.arrays["observation0"][:] = 1.0
    rings.heads = [90_000]  # at least 128 KiB in a segment: 10,082 rows
    first = save_rows(tmp_path, "rows-0-1", rings.rows(), [])
    assert len(first) == 9
    whole = sum((tmp_path / file).stat().st_size for file in files_of(first))
    rings.heads = [90_500]
    second = save_rows(tmp_path, "rows-0-2", rings.rows(), first)
    new = files_of(second) - files_of(first)
    assert sum((tmp_path / file).stat().st_size for file in new) < 0.15 * whole


def test_the_files_of_many_checkpoints_stay_small_and_few(tmp_path):
    rings, segments = Rings(2, 200_000), []
    for number in range(300):
        rings.heads = [head + 1_000 + 20 * env for env, head in enumerate(rings.heads)]
        segments = save_rows(tmp_path, f"rows-0-{number}", rings.rows(), segments)
        for file in {path.name for path in tmp_path.iterdir()} - files_of(segments):
            (tmp_path / file).unlink()
    assert len(segments) < 100
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 1.1 * sum(array.nbytes for array in rings.arrays.values())


@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped", "forged", "gap"])
def test_damage_is_noticed(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(row_segments, "_FEWEST_BYTES", 8 * 13)
    rings, segments = Rings(1, 40), []
    for number in range(5):
        rings.append(12)
        segments = save_rows(tmp_path, f"rows-0-{number}", rings.rows(), segments)
    assert len(segments) > 2
    path = tmp_path / segments[1]["file"]
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "swapped":
        path.write_bytes((tmp_path / segments[0]["file"]).read_bytes())
    elif damage == "forged":
        segments[1] = {**segments[1], "file": "../rows-0-0-0.h5"}
    else:
        del segments[1]
    with pytest.raises(hdf5.DamagedFileError):
        load_rows(tmp_path, rings.rows(), segments)
