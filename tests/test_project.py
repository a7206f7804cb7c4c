"""What surrounds the code names versions that agree with it."""

import pathlib
import re

import keras_dqn

ROOT = pathlib.Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_everywhere():
    released = re.findall(r"^## (\d\S*) - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)
    citation = dict(re.findall(r"^([\w-]+): (\S+)$", text("CITATION.cff"), re.MULTILINE))
    assert released[0] == (citation["version"], citation["date-released"])
    assert keras_dqn.__version__ == citation["version"]


def test_the_oldest_versions_are_those_tested():
    claimed = re.search(r"^dependencies = (.*)$", text("pyproject.toml"), re.MULTILINE)[1]
    oldest = re.search(r"versions: (.*)$", text(".github/workflows/tests.yml"), re.MULTILINE)[1]
    table = text("docs/compatibility.md")
    for name, version in re.findall(r"(\w+)==([\d.]+)\.\*", oldest):
        assert f'"{name}>={version}"' in claimed
        assert re.search(rf"\| {name} \| {version} \|", table, re.IGNORECASE)


def test_files_named_for_contributors_are_there():
    for path in re.findall(r"`((?:tests|keras_dqn|docs|\.ci)/[\w/.]+)`", text("CONTRIBUTING.md")):
        if path != "keras_dqn/layers/":
            assert (ROOT / path).exists(), path
