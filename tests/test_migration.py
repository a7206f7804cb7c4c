"""docs/migration.md: its scripts run, and all that it names exists.

A script is the Python block under a line that ends with "Here:"; only its `epochs` is set to 1.
Names are those of the code spans in the columns "Here", and of calls in any other text. Each option
of `OPTIONS` stands in the first column of a table of its library.
"""

import ast
import inspect
import pathlib
import re
from unittest.mock import MagicMock

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn
import keras_dqn.integrations.tf_agents

TEXT = (pathlib.Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPTS = re.findall(r"Here:\n\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")

# The arguments of the constructors in the releases that the page names, by heading.
OPTIONS = {
    "From keras-rl and keras-rl2": """
        model policy test_policy enable_double_dqn enable_dueling_network dueling_type nb_actions
        memory gamma batch_size nb_steps_warmup train_interval memory_interval target_model_update
        delta_range delta_clip custom_model_objects processor""",
    "From Stable-Baselines3": """
        policy env learning_rate buffer_size learning_starts batch_size tau gamma train_freq
        gradient_steps replay_buffer_class replay_buffer_kwargs optimize_memory_usage n_steps
        target_update_interval exploration_fraction exploration_initial_eps exploration_final_eps
        max_grad_norm stats_window_size tensorboard_log policy_kwargs verbose seed device
        n_quantiles net_arch activation_fn features_extractor_class features_extractor_kwargs
        normalize_images optimizer_class optimizer_kwargs""",
    "From TF-Agents": """
        time_step_spec action_spec q_network optimizer observation_and_action_constraint_splitter
        epsilon_greedy n_step_update boltzmann_temperature emit_log_probability target_q_network
        target_update_tau target_update_period td_errors_loss_fn gamma reward_scale_factor
        gradient_clipping debug_summaries summarize_grads_and_vars train_step_counter
        training_data_spec name categorical_q_network min_q_value max_q_value num_atoms
        input_tensor_spec preprocessing_layers preprocessing_combiner conv_layer_params
        fc_layer_params dropout_layer_params activation_fn kernel_initializer batch_squash dtype
        q_layer_activation_fn""",
    "From RLlib": """
        gamma lr lr_schedule grad_clip grad_clip_by train_batch_size train_batch_size_per_learner
        num_epochs minibatch_size shuffle_batch_per_epoch model optimizer learner_class
        learner_connector learner_config_dict target_network_update_freq replay_buffer_config
        store_buffer_in_checkpoints epsilon adam_epsilon num_steps_sampled_before_learning_starts
        tau num_atoms v_min v_max noisy sigma0 dueling hiddens double_q n_step
        before_learn_on_batch training_intensity td_error_loss_fn
        categorical_distribution_temperature burn_in_len environment env_runners learners
        evaluation offline_data multi_agent reporting checkpointing debugging callbacks
        fault_tolerance rl_module framework resources api_stack python_environment experimental""",
    "From Dopamine": """
        num_actions observation_shape observation_dtype stack_size network gamma update_horizon
        min_replay_history update_period target_update_period epsilon_fn epsilon_train epsilon_eval
        epsilon_decay_period eval_mode optimizer summary_writer summary_writing_frequency
        allow_partial_reload seed loss_type preprocess_fn collector_allowlist num_atoms vmin vmax
        replay_scheme noisy dueling double_dqn distributional mse_loss num_updates_per_train_step
        kappa num_tau_samples num_tau_prime_samples num_quantile_samples quantile_embedding_dim
        learning_rate beta1 beta2 eps centered anneal_learning_rate anneal_steps
        data_augmentation base_dir create_agent_fn create_environment_fn checkpoint_file_prefix
        logging_file_prefix log_every_n num_iterations training_steps evaluation_steps
        max_steps_per_episode clip_rewards use_legacy_logger fine_grained_print_to_console
        max_capacity batch_size checkpoint_duration compress""",
}


class ShortRun(ast.NodeTransformer):
    def visit_Assign(self, node):
        if [ast.unparse(target) for target in node.targets] == ["epochs"]:
            node.value = ast.Constant(1)
        return node


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_the_scripts_run(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = ast.fix_missing_locations(ShortRun().visit(ast.parse(script)))
    namespace = {}
    exec(compile(tree, "docs/migration.md", "exec"), namespace)
    assert isinstance(namespace["agent"], keras_dqn.DQN)


def test_each_library_has_a_script_there_and_here():
    assert TEXT.count("\nThere:\n") == TEXT.count("\nHere:\n") == len(OPTIONS) == 5
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize("heading", OPTIONS)
def test_no_option_is_forgotten(heading):
    assert TEXT.count(f"\n## {heading}\n") == 1
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    named = {
        word
        for row in tables(section)
        for span in SPAN.findall(next(iter(row.values())))
        for word in re.findall(r"\w+", span)
    }
    assert set(OPTIONS[heading].split()) <= named, set(OPTIONS[heading].split()) - named


@pytest.fixture(scope="module")
def names():
    """What the page's expressions begin with, and the logs of a short `fit`."""
    env = gym.make("CartPole-v1")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    agent.compile()
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=1_000)
    explore = keras_dqn.EpsilonGreedy(0.1)
    collect = keras_dqn.CollectTransitions(env, replay, exploration=explore, warmup_steps=400)
    evaluate = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=1)
    callbacks = [collect, keras_dqn.SoftTargetUpdate(), evaluate]
    fit = agent.fit(replay.dataset(1), steps_per_epoch=1, callbacks=callbacks, verbose=0)
    values = {name: getattr(keras_dqn, name) for name in keras_dqn.__all__}
    values |= {"agent": agent, "network": network, "replay": replay, "collect": collect, "env": env}
    values |= {"keras": keras, "keras_dqn": keras_dqn, "gym": gym, "np": np, "print": print}
    values |= {"dataset": replay.dataset(1), "shape": (4,), "torso": network, "head": network}
    return {**values, "logs": fit.history}


def tables(text=TEXT):
    """Yields the cells of each row of each table, as a dict by the header."""
    header = None
    for line in BLOCK.sub("", text).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            header = None
        elif header is None:
            header = cells
        elif not set("".join(cells)) <= {"-"}:
            assert len(cells) == len(header) == 3, line
            yield dict(zip(header, cells, strict=True))


def test_each_row_says_what_is_here():
    rows = list(tables())
    assert len(rows) > 250
    assert all(row["Here"] for row in rows)


SPANS_HERE = sorted({span for row in tables() for span in SPAN.findall(row["Here"])})


@pytest.mark.parametrize("span", SPANS_HERE)
def test_what_is_here_exists(span, names):
    tree = ast.parse(span, mode="eval").body
    if isinstance(tree, ast.Constant):
        assert tree.value in names["logs"]
    check(tree, names)


def test_calls_in_the_text_exist(names):
    text = BLOCK.sub("", TEXT)
    for row in tables():  # what stands in the first column belongs to the other library
        text = text.replace(f"| {next(iter(row.values()))} |", "")
    num_checked = 0
    for span in SPAN.findall(text):
        try:
            tree = ast.parse(span, mode="eval").body
        except SyntaxError:
            continue
        if root_of(tree) in names:
            check(tree, names)
            num_checked += 1
    assert num_checked > len(SPANS_HERE)


def test_what_does_not_exist_is_found(names):
    for span in ("DQN(network, dueling=True)", "ReplayBuffer.from_env(env, size=1)", "agent.learn"):
        with pytest.raises((AssertionError, AttributeError, TypeError)):
            check(ast.parse(span, mode="eval").body, names)


def root_of(tree):
    while isinstance(tree, ast.Attribute | ast.Call):
        tree = tree.value if isinstance(tree, ast.Attribute) else tree.func
    return getattr(tree, "id", None)


def check(tree, names):
    """Resolves all names of an expression, and matches its calls with their signatures."""
    if isinstance(tree, ast.Name):
        return names[tree.id]
    if isinstance(tree, ast.Attribute):
        return getattr(check(tree.value, names), tree.attr)
    if isinstance(tree, ast.Call):
        function = check(tree.func, names)
        for argument in [*tree.args, *(keyword.value for keyword in tree.keywords)]:
            check(argument, names)
        check_call(function, tree)
        return function if inspect.isclass(function) else MagicMock()
    return None


def check_call(function, call):
    if isinstance(function, MagicMock) or function is print:
        return
    signature = inspect.signature(function)
    given = [keyword.arg for keyword in call.keywords]
    signature.bind_partial(*call.args, **dict.fromkeys(given))
    further = {
        gym.make: gym.envs.classic_control.CartPoleEnv,
        keras_dqn.ReplayBuffer.from_env: keras_dqn.ReplayBuffer,
        keras_dqn.PrioritizedReplayBuffer.from_env: keras_dqn.PrioritizedReplayBuffer,
    }
    known = {*signature.parameters}
    if getattr(function, "__self__", None).__class__ is keras_dqn.DQN:
        overridden = getattr(keras.Model, function.__name__, function)
        known |= {*inspect.signature(overridden).parameters}
    if inspect.isclass(function) and issubclass(function, keras_dqn.DQN):
        known |= {*inspect.signature(keras_dqn.DQN).parameters}
    if function in further:
        known |= {*inspect.signature(further[function]).parameters}
    assert set(given) <= known, f"{ast.unparse(call)}: {set(given) - known}"
