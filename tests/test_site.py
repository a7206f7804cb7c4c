"""The site has a page for each public name, example and linked file; `.ci/run` builds it."""

import importlib.util
import pathlib
import re

import keras_dqn
from keras_dqn.integrations import minari, ray, tf_agents

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("site_pages", ROOT / ".ci" / "site_pages.py")
site_pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site_pages)


def test_each_public_name_has_a_page_with_its_docstring():
    names = {f"keras_dqn.{name}" for name in keras_dqn.__all__}
    names |= {f"keras_dqn.integrations.tf_agents.{name}" for name in tf_agents.__all__}
    names |= {f"keras_dqn.integrations.ray.{name}" for name in ray.__all__}
    names |= {f"keras_dqn.integrations.minari.{name}" for name in minari.__all__}
    libraries = ("minari", "ray", "tf_agents")
    names -= {f"keras_dqn.integrations.{name}.INSTALL_COMMAND" for name in libraries}
    names |= {f"keras_dqn.layers.{name}" for name in public_layers()}
    names |= {f"keras_dqn.losses.{name}" for name in keras_dqn.losses.__all__}
    names |= {f"keras_dqn.networks.{name}" for name in keras_dqn.networks.__all__}
    names |= {f"keras_dqn.ops.{name}" for name in keras_dqn.ops.__all__}
    found = list(site_pages.public_names())
    assert {name for name, _, _ in found} == names
    assert len({site_pages.page_of(name) for name in names}) == len(names)
    for name, module, text in found:
        assert site_pages.group_of(module)
        assert text.splitlines()[0] in site_pages.api_index().replace("\n", " "), name


def public_layers():
    layers = getattr(keras_dqn, "layers", None)
    return [name for name in getattr(layers, "__all__", dir(layers)) if is_ours(layers, name)]


def is_ours(module, name):
    defined_in = getattr(getattr(module, name, None), "__module__", "")
    return not name.startswith("_") and defined_in.startswith("keras_dqn.")


def test_an_example_has_a_page():
    for path in site_pages.examples():
        text = site_pages.page_of_file(path)
        assert re.search("^# ", text, re.MULTILINE)
        assert "import keras_dqn" in text


def test_links_between_files_become_links_between_pages():
    class Page:
        class file:
            src_uri = "cookbook.md"

    text = (
        "See [this](../examples/ddpg.py), [home](../README.md#a), [it](../LICENSE),\n"
        "[`DQN`](../keras_dqn/models/dqn.py), [all](../keras_dqn/__init__.py):\n"
        "- [a page](keras.md)\n"
        "```python\n[x](../LICENSE)\n```\n"
    )
    linked = site_pages.linked_files(text, "docs/cookbook.md")
    assert set(linked) == {"LICENSE"}
    assert site_pages.on_page_markdown(text, Page) == (
        "See [this](examples/ddpg.md), [home](index.md#a), [it](files/LICENSE.md),\n"
        "[`DQN`](api/DQN.md), [all](api/index.md):\n"
        "\n- [a page](keras.md)\n"
        "```python\n[x](../LICENSE)\n```\n"
    )
