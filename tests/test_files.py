import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_dqn.files import replaced


def write(path, text):
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(text)


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    with replaced(path) as unfinished:
        assert unfinished.endswith(".txt")
        pathlib.Path(unfinished).write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_debris(tmp_path, error):
    path = tmp_path / "a.txt"
    write(path, "old")

    def fail():
        with replaced(path) as unfinished:
            pathlib.Path(unfinished).write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_many_may_write_to_one_path(tmp_path):
    """Once 51 of 248 loads saw a file that could not be read."""
    path = tmp_path / "a[1].txt"
    texts = [letter * 100_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(lambda text: write(path, text), texts))
            assert path.read_text() in texts
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="process numbers")
def test_what_a_killed_process_has_left_is_removed(tmp_path):
    path = tmp_path / "a[1].txt"
    code = (
        "import os, sys\n"
        "from keras_dqn.files import replaced\n"
        "with replaced(sys.argv[1]) as unfinished:\n"
        "    open(unfinished, 'w').write('half')\n"
        "    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with replaced(path) as running:  # that of a process that lives is left alone
        pathlib.Path(running).write_text("first")
        write(path, "second")
        assert pathlib.Path(running).exists()
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "there" / "b.txt")
    write(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "b.txt").read_text() == "new"
