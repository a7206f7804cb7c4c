"""Stable-Baselines3's `DQN.learn` (torch), or SBX's (the same interface on JAX), on CartPole.

Two differences to the others remain, both in its favour: its DQN is not double, and the target
network is blended once a vector step, not once an update.
"""

import argparse

import race
import torch
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--envs", type=int, default=1)
parser.add_argument("--library", choices=["stable_baselines3", "sbx"], default="stable_baselines3")
parser.add_argument("--units", type=int, default=64, help="of both layers (default 64)")
parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
args = parser.parse_args()

if args.library == "sbx":
    from sbx import DQN
else:
    from stable_baselines3 import DQN

torch.set_num_threads(args.threads)
WARMUP_STEPS = 1_000

agent = DQN(
    "MlpPolicy",
    make_vec_env("CartPole-v1", n_envs=args.envs),
    learning_rate=1e-3,
    buffer_size=100_000,
    learning_starts=WARMUP_STEPS,
    batch_size=64,
    tau=0.005,
    target_update_interval=1,
    train_freq=1,
    gradient_steps=args.envs,
    policy_kwargs={"net_arch": [args.units, args.units]},
    device="cpu",
    seed=0,
)


def work(request):
    """Continues to learn; at the end of a vector step, so the count is rounded up to E."""
    before = agent.num_timesteps
    agent.learn(request["count"], reset_num_timesteps=False, log_interval=None)
    return agent.num_timesteps - before


work({"count": WARMUP_STEPS + 10 * args.envs + 100})
race.serve(work)
