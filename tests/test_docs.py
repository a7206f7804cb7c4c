"""README and the pages of docs/: their Python runs, their links lead somewhere.

The blocks of a page run in order in one namespace, shortened: one epoch of at most 64 updates, one
seed, no XLA. `docs/migration.md` has a test of its own.
"""

import ast
import pathlib
import re

import gymnasium as gym
import keras
import pytest

import keras_dqn

REPOSITORY = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(keras_dqn.__file__).parent
SOURCE = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
README, DOCS = REPOSITORY / "README.md", REPOSITORY / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in [README, *DOCS.glob("*.md")]}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
RUN = (
    "README.md",
    "cookbook.md",
    "family.md",
    "index.md",
    "many-machines.md",
    "offline.md",
    "resuming.md",
    "slow-dqn.md",
)

# A block that imports one of them is compiled only: the games are no extra, and the tests of
# exported programs are in tests/acting/test_export.py.
NOT_RUN = {"ale_py", "envpool", "minatar", "onnxruntime", "ai_edge_litert"}


class ShortRun(ast.NodeTransformer):
    def visit_keyword(self, node):
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant):
            most = {"epochs": 1, "steps_per_epoch": 64}.get(node.arg)
            if most is not None:
                node.value = ast.Constant(min(most, node.value.value))
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if ast.unparse(node.func).endswith("agent.compile"):
            node.keywords.append(ast.keyword("jit_compile", ast.Constant(False)))
        return node

    def visit_Assign(self, node):
        self.generic_visit(node)
        short = {"epochs": "1", "seeds": "range(1)"}.get(ast.unparse(node.targets[0]))
        if short is not None:
            node.value = ast.parse(short, mode="eval").body
        return node


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in BLOCK.findall(PAGES[page]):
        tree = ast.fix_missing_locations(ShortRun().visit(ast.parse(block)))
        code = compile(tree, page, "exec")
        if NOT_RUN.isdisjoint(imports_of(tree)):
            exec(code, namespace)
    assert isinstance(namespace["agent"], keras_dqn.DQN)


def test_all_pages_with_python_are_run():
    with_python = {name for name, text in PAGES.items() if BLOCK.search(text)}
    assert with_python == {*RUN, "migration.md"}


def anchors_of(text):
    for title in re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = REPOSITORY if page == README.name else DOCS
    for link in LINK.findall(FENCED.sub("", PAGES[page])):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = folder / path if path else folder / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


def test_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_table_of_logs_has_all_names_of_a_fit(make_network):
    table = PAGES["logs.md"].split("|---|---|---|---|\n")[1].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()]
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    logged = set()
    for exploration in (keras_dqn.EpsilonGreedy(0.1), keras_dqn.Boltzmann(1.0)):
        agent = keras_dqn.DQN(make_network(inputs=4))
        agent.compile()
        env, test_env = gym.make("CartPole-v1"), gym.make("CartPole-v1")
        replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, capacity=500)
        callbacks = [
            keras_dqn.CollectTransitions(env, replay, exploration=exploration, warmup_steps=200),
            keras_dqn.SoftTargetUpdate(),
            keras_dqn.EvaluatePolicy(test_env, episodes=1),
        ]
        data = replay.dataset(4)
        logged |= {
            *agent.fit(
                data,
                steps_per_epoch=1,
                validation_data=data,
                validation_steps=1,
                callbacks=callbacks,
                verbose=0,
            ).history
        }
    of_train_on_batch = {"td_error", "priority"}
    of_ray = {"policy_lag", "worker_restarts"}  # `tests/integrations/test_ray.py` sees them
    assert listed == logged | {"learning_rate"} | of_train_on_batch | of_ray  # the rate is Keras'


def messages():
    """Yields the strings of the package, `...` in the place of what they quote."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                ]
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_on_the_page_of_errors_are_those_of_the_package():
    quoted = re.findall(r'(?:\*\*|\| )"(.+?)"(?:\*\*| \|)', PAGES["errors.md"], re.DOTALL)
    assert len(quoted) > 12
    texts = "\n".join(messages())
    for quote in quoted:
        for part in " ".join(quote.split()).split("..."):
            assert part.strip(" .") in texts, quote


# docs/architecture.md


def test_each_file_it_names_is_there():
    names = re.findall(r"`((?:tests/)?\w+/[\w/]*(?:\.py)?)`", PAGES["architecture.md"])
    assert len(names) > 40
    for name in names:
        folder = REPOSITORY if name.startswith("tests/") else PACKAGE
        assert (folder / name).exists(), name


def test_each_function_it_names_is_there():
    names = set(re.findall(r"\b(\w+)\(", PAGES["architecture.md"])) - {"soft_update"}
    assert len(names) > 30
    of_keras = {"apply_gradients"} | set(dir(keras.Model))
    for name in names - of_keras:
        assert re.search(rf"\bdef {name}\(", SOURCE), name
