"""keras_dqn: CartPole through `model.fit`, collecting between executions of 64 updates."""

import argparse

import gymnasium as gym
import keras
import race

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--envs", type=int, default=1)
parser.add_argument("--vectorized", action="store_true", help="CartPole written as one array")
parser.add_argument("--without-litert", action="store_true", help="as without the extra `fast`")
parser.add_argument("--in-turn", action="store_true", help="collect before each execution")
parser.add_argument("--updates", type=int, default=64, help="updates an execution, K")
parser.add_argument("--profile", help="write what cProfile saw of the requests to this file")
args = parser.parse_args()
if args.without_litert:
    keras_dqn.acting.litert_program.Interpreter = None

UPDATES_PER_EXECUTION = args.updates
CAPACITY, WARMUP_STEPS = 100_000, 1_000

if args.envs == 1:
    env = gym.make("CartPole-v1")
else:
    mode = "vector_entry_point" if args.vectorized else "sync"
    env = gym.make_vec("CartPole-v1", num_envs=args.envs, vectorization_mode=mode)
observation_space, action_space = (
    (env.observation_space, env.action_space)
    if args.envs == 1
    else (env.single_observation_space, env.single_action_space)
)
network = keras.Sequential(
    [
        keras.Input(observation_space.shape),
        keras.layers.Dense(64, "relu"),
        keras.layers.Dense(64, "relu"),
        keras.layers.Dense(int(action_space.n)),
    ]
)
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=UPDATES_PER_EXECUTION)
replay = keras_dqn.ReplayBuffer.from_env(env, CAPACITY, seed=0)
dataset = replay.dataset(batch_size=64, gamma=0.99)
collect = keras_dqn.CollectTransitions(
    env,
    replay,
    exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
    warmup_steps=WARMUP_STEPS,
    overlap=not args.in_turn,
    seed=0,
)
callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]


def work(request):
    """One `fit` of as many updates as environment steps are asked for, in one epoch."""
    before = collect.env_steps
    updates = -(-request["count"] // UPDATES_PER_EXECUTION) * UPDATES_PER_EXECUTION
    agent.fit(dataset, steps_per_epoch=updates, callbacks=callbacks, verbose=0)
    return collect.env_steps - before


work({"count": 2 * UPDATES_PER_EXECUTION})
if args.profile:
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
race.serve(work)
if args.profile:
    profile.disable()
    profile.dump_stats(args.profile)
