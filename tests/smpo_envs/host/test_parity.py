"""The native tasks against the real package, side by side: single steps, then whole episodes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded
from scipy import stats

import smpo_envs
from smpo_envs.host import WorkerEnvs, native_name_to_id, safety_gymnasium_task
from smpo_envs.host.single import safety_gymnasium
from smpo_envs.safe_env import State
from smpo_envs.safety_gym import boxes, goal, point
from smpo_envs.safety_gym.arena import Arena
from smpo_envs.safety_gym.worlds import World
from smpo_jax.training.evaluation import evaluate
from smpo_jax.training.host import evaluate_host

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("real")]

GOAL_LIDAR, HAZARDS_LIDAR = slice(12, 28), slice(28, 44)
# The arrow's corner reaches 0.158 m from the Point's origin, a vase's 0.141 m from its centre; in
# one step neither comes more than 0.03 m nearer.
CLEAR = 0.34
NOT_MOVING = 1e-3  # m/s; a vase that settles into the floor is slower


def seek(obs, key):
    """Drives to the goal, or to the hazards while the goal is out of sight; `[N, O]`, `[N, 2]`."""
    del key
    shown = obs[:, GOAL_LIDAR]
    if obs.shape[1] > 28:
        nothing = jnp.max(shown, axis=1, keepdims=True) == 0
        shown = jnp.where(nothing, obs[:, HAZARDS_LIDAR], shown)
    angles = (jnp.arange(16) + 0.5) * (2 * jnp.pi / 16)
    bearing = shown @ jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    angle = jnp.arctan2(bearing[:, 1], bearing[:, 0])
    # Full force is reached at 0.05 of the drive's range.
    return jnp.stack([0.05 * jnp.cos(angle), jnp.clip(2 * angle, -1, 1)], axis=1)


jitted_seek = jax.jit(seek)


def still(obs, key):
    del key
    return jnp.zeros((obs.shape[0], 2))


def native_state(task):
    """Arena and goal of a real task, as its native twin holds them, in NumPy arrays."""
    model, data = task.model, task.data
    agent = model.body("agent")
    cos_half, _, _, sin_half = agent.quat
    pose, rates = data.qpos[3:].reshape(-1, 7), data.qvel[3:].reshape(-1, 6)
    numbers = {kind.name: number for kind, number in goal.LEVELS[level(task)].objects}
    hazards = [data.body(f"hazard{i}").xpos[:2] for i in range(numbers.get("hazards", 0))]
    robot = point.Point(
        start=agent.pos[:2],
        rotation=2 * np.arctan2(sin_half, cos_half),
        q=data.qpos[:3],
        v=data.qvel[:3],
    )
    vases = boxes.FreeBoxes(
        position=pose[:, :3],
        quaternion=pose[:, 3:],
        velocity=rates[:, :3],
        angular_velocity=rates[:, 3:],
    )
    markers = {"hazards": jnp.reshape(jnp.asarray(hazards), (-1, 2))} if hazards else {}
    where = (Arena(World(robot, vases, jnp.zeros((0, 2))), markers), data.body("goal").xpos[:2])
    return jax.tree.map(np.array, where)  # copies: the simulator writes into its own arrays


def level(task):
    return int(type(task).__name__[-1])  # GoalLevel1


def clear_of_vases(task):
    """Nothing but the Point moves, and it can touch nothing."""
    agent, vases = task.agent.pos[:2], task.data.qpos[3:].reshape(-1, 7)[:, :2]
    distance = np.linalg.norm(vases - agent, axis=1)
    speed = np.linalg.norm(task.data.qvel[3:].reshape(-1, 6)[:, :3], axis=1)
    return bool((distance > CLEAR).all() and (speed < NOT_MOVING).all())


@pytest.mark.parametrize("difficulty", [0, 1, 2])
def test_native_step_from_a_real_state_does_what_the_real_step_does(difficulty):
    """Both step from the same state under the same action, along a real episode.

    Steps in which the Point could touch a vase, or one is moving, are left out: there even two
    versions of the simulator disagree. After a new goal only its position differs, by the draw.
    """
    name = f"PointGoal{difficulty}"
    noise = np.random.default_rng(difficulty)
    with jax.enable_x64(True):
        real = safety_gymnasium(f"Safety{name}-v0").env
        task = real.unwrapped.task
        obs, _ = real.reset(seed=8)  # an episode with goals and hazards
        before, actions, seen = [], [], []
        for _ in range(300):
            wanted = np.asarray(jitted_seek(obs[None], None)[0], np.float64)
            action = np.clip(wanted + [0.02, 0.3] * noise.normal(size=2), -1, 1)
            state, was_clear = native_state(task), clear_of_vases(task)
            obs, reward, cost, *_, info = real.step(action)
            met = bool(info.get("goal_met", False))
            if was_clear and clear_of_vases(task):
                before.append(state)
                actions.append(action)
                seen.append((obs, reward, cost, met))
        states = jax.tree.map(lambda *leaves: np.stack(leaves), *before)
        native = smpo_envs.make(name)
        after = jax.jit(lambda *xs: jax.lax.map(partial(step, native), xs))(
            states, np.stack(actions)
        )
    obs, reward, cost, met = (np.array(column) for column in zip(*seen, strict=True))

    assert len(seen) > 200
    assert met.sum() >= 2
    sensors = slice(0, 3), slice(3, 12)
    # The accelerometer amplifies an error of the yaw rate, which is up to 2e-11 here, 3000 times.
    np.testing.assert_allclose(after.obs[:, sensors[0]], obs[:, sensors[0]], atol=1e-7)
    np.testing.assert_allclose(after.obs[:, sensors[1]], obs[:, sensors[1]], atol=1e-9)
    kept = ~met
    np.testing.assert_allclose(after.obs[kept, GOAL_LIDAR], obs[kept, GOAL_LIDAR], atol=1e-10)
    np.testing.assert_allclose(after.obs[:, 28:], obs[:, 28:], atol=1e-10)
    np.testing.assert_allclose(after.reward, reward, atol=1e-11)
    np.testing.assert_array_equal(after.info["cost"], cost)
    np.testing.assert_array_equal(after.metrics["goal_met"], met)
    if difficulty:
        assert 0 < cost.sum() < len(cost)


def step(env, state_and_action):
    where, action = state_and_action
    zero = jnp.zeros(())
    state = recorded.goal_state(goal, *where, key=jax.random.key(0))
    unseen = State(state, jnp.zeros(env.observation_size), zero, zero, {}, {"cost": zero})
    return env.step(unseen, action).replace(pipeline_state=None)


def play_native(name, act, episodes):
    env = smpo_envs.VectorEnv(smpo_envs.make(name), episodes, stagger=False)
    return jax.jit(lambda key: evaluate(act, env, key, episodes))(jax.random.key(0))


def play_real(name, act, episodes, batch):
    with WorkerEnvs(safety_gymnasium_task(native_name_to_id(name)), batch) as env:
        return evaluate_host(act, env, jax.random.key(1), episodes)


def assert_means_agree(first, second, *, confidence):
    """The Welch interval of the difference of the means holds 0."""
    result = stats.ttest_ind(first, second, equal_var=False)
    assert result.pvalue > 1 - confidence, (
        f"{np.mean(first):.3f} ± {stats.sem(first):.3f} against "
        f"{np.mean(second):.3f} ± {stats.sem(second):.3f}"
    )


def test_standing_still_earns_and_costs_exactly_nothing():
    episodes = play_real("PointGoal1", still, 2, 2)
    np.testing.assert_array_equal(episodes.return_, 0.0)
    np.testing.assert_array_equal(episodes.cost, 0.0)
    np.testing.assert_array_equal(episodes.length, 1000.0)


def test_seeking_the_goal_earns_the_same_in_both():
    native, real = play_native("PointGoal0", seek, 32), play_real("PointGoal0", seek, 4, 2)
    np.testing.assert_array_equal(real.length, 1000.0)
    assert np.mean(real.return_) > 10
    # Few episodes, and another machine's round-off makes others of them: hence a wide interval.
    assert_means_agree(native.return_, real.return_, confidence=0.999)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PointGoal1", "PointGoal2"])
def test_seeking_the_goal_earns_and_costs_the_same_in_both_over_many_episodes(name):
    native, real = play_native(name, seek, 256), play_real(name, seek, 40, 4)
    for first, second in ((native.return_, real.return_), (native.cost, real.cost)):
        print(f"{name}: {np.mean(first):.3f} {np.mean(second):.3f} ± {stats.sem(second):.3f}")
        assert_means_agree(first, second, confidence=0.99)
