"""Other libraries in the learning curves, with their own tuned settings.

    python -m pip install torch==2.13.0 stable-baselines3 sb3-contrib
    python benchmarks/learning.py --env Acrobot-v1 --preset sb3-dqn --first-seed 0 --seeds 10
    export MINATAR_DQN=path/to/MinAtar/examples/dqn.py
    python benchmarks/learning.py --env MinAtar/Breakout-v0 --preset minatar-dqn --seeds 3

`sb3-dqn` and `sb3-qrdqn` are Stable-Baselines3's DQN and SB3-contrib's QR-DQN with the settings of
rl-zoo3's `hyperparams/dqn.yml` and `qrdqn.yml`; what they decay, they decay over the budget of the
command. `minatar-dqn` is MinAtar's own program from a checkout of its repository, with the budget
in place of its 5,000,000 frames. It is evaluated at its end only.
"""

import importlib.util
import os
import random
import tempfile

import gymnasium as gym
import numpy as np

ZOO = {
    "CartPole-v1": dict(
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1_000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
    ),
    "MountainCar-v0": dict(
        learning_rate=4e-3,
        batch_size=128,
        buffer_size=10_000,
        learning_starts=1_000,
        gamma=0.98,
        target_update_interval=600,
        train_freq=16,
        gradient_steps=8,
        exploration_fraction=0.2,
        exploration_final_eps=0.07,
    ),
    "Acrobot-v1": dict(
        learning_rate=6.3e-4,
        batch_size=128,
        buffer_size=50_000,
        learning_starts=0,
        gamma=0.99,
        target_update_interval=250,
        train_freq=4,
        gradient_steps=-1,
        exploration_fraction=0.12,
        exploration_final_eps=0.1,
    ),
}
ZOO["LunarLander-v3"] = ZOO["Acrobot-v1"]  # the zoo has the same numbers for both
ZOO_QRDQN = {
    **ZOO,
    "LunarLander-v3": dict(
        learning_rate=lambda remaining: 1.5e-3 * remaining,
        batch_size=128,
        buffer_size=100_000,
        learning_starts=10_000,
        gamma=0.995,
        target_update_interval=1,
        train_freq=256,
        gradient_steps=-1,
        exploration_fraction=0.24,
        exploration_final_eps=0.18,
    ),
}
NUM_QUANTILES = {"CartPole-v1": 10, "MountainCar-v0": 25, "Acrobot-v1": 25, "LunarLander-v3": 170}


def mean_return(env_id, act, episodes, seed, max_episode_steps=None):
    """Returns the mean of whole episodes of ten environments, of which each plays its share.

    `act` maps observations `[10, ...]` to actions `[10]`. `episodes` is a multiple of 10.
    """
    if episodes % 10:
        raise ValueError(f"`episodes` must be a multiple of 10. Received: episodes={episodes}")
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync", **limit)
    returns, missing, total = np.zeros(10), np.full(10, episodes // 10), 0.0
    observation, _ = env.reset(seed=seed)
    while missing.any():
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        returns += reward  # 0 in the step that resets
        ended = terminated | truncated
        total += returns[ended & (missing > 0)].sum()
        missing -= ended & (missing > 0)
        returns[ended] = 0.0
    env.close()
    return total / episodes


def sb3_dqn(env_id, seed, env_steps, rows):
    from stable_baselines3 import DQN

    net = {"net_arch": [256, 256]}
    model = DQN("MlpPolicy", env_id, **ZOO[env_id], policy_kwargs=net, seed=seed)
    learn(model, env_id, seed, env_steps, rows)


def sb3_qrdqn(env_id, seed, env_steps, rows):
    from sb3_contrib import QRDQN

    net = {"net_arch": [256, 256], "n_quantiles": NUM_QUANTILES[env_id]}
    model = QRDQN("MlpPolicy", env_id, **ZOO_QRDQN[env_id], policy_kwargs=net, seed=seed)
    learn(model, env_id, seed, env_steps, rows)


def learn(model, env_id, seed, env_steps, rows):
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    def act(observation):
        return model.predict(observation, deterministic=True)[0]

    class Evaluate(BaseCallback):
        def _on_step(self):
            if self.num_timesteps % (env_steps // 25) == 0:
                rows.add(self.num_timesteps, mean_return(env_id, act, 10, seed + 1_000))
            return True

    torch.set_num_threads(1)
    model.learn(env_steps, callback=Evaluate(), log_interval=None)
    rows.add(env_steps, mean_return(env_id, act, 100, seed + 2_000), final=1)


def minatar_dqn(env_id, seed, env_steps, rows):
    import minatar.gym
    import torch

    minatar.gym.register_envs()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the program draws from it)
    spec = importlib.util.spec_from_file_location("minatar_dqn", os.environ["MINATAR_DQN"])
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.NUM_FRAMES = env_steps
    name = env_id.removeprefix("MinAtar/").removesuffix("-v0")
    name = "space_invaders" if name == "SpaceInvaders" else name.lower()
    env = minatar.Environment(name)
    env.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "run")
        program.dqn(env, False, False, output)
        weights = torch.load(f"{output}_data_and_weights", weights_only=False)
    network = program.QNetwork(env.state_shape()[2], env.num_actions())
    network.load_state_dict(weights["policy_net_state_dict"])

    @torch.no_grad()
    def act(observation):
        channels_first = torch.tensor(observation).permute(0, 3, 1, 2).contiguous()
        return network(channels_first.float()).argmax(1).numpy()

    rows.add(env_steps, mean_return(env_id, act, 100, seed + 2_000, 10_000), final=1)


PEERS = {"sb3-dqn": sb3_dqn, "sb3-qrdqn": sb3_qrdqn, "minatar-dqn": minatar_dqn}


def refusal(env_id, name, checkpoints):
    """Returns why the preset of another library cannot be run, or None."""
    if checkpoints:
        return f"`--checkpoints` is for our presets. Received: --preset {name}"
    if not (env_id.startswith("MinAtar/") if name == "minatar-dqn" else env_id in ZOO):
        return f"`--preset {name}` has no settings for this environment. Received: --env {env_id}"
    if name == "minatar-dqn" and not os.path.isfile(os.environ.get("MINATAR_DQN", "")):
        path = os.environ.get("MINATAR_DQN")
        return f"`MINATAR_DQN` must be the path of MinAtar's `examples/dqn.py`. Received: {path}"
    return None
