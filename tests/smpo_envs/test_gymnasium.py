"""Our tasks under Gymnasium's interfaces: its own checks, and the same numbers as ours."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import smpo_envs

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra 'gymnasium'")

import smpo_envs.gymnasium  # noqa: E402 - it needs the other
from smpo_envs.gymnasium.envs import FINAL_OBS, IS_029  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = list(smpo_envs.TASKS)
PROBE = "smpo_envs/ProbeFollow-v0"
SHORT = 10  # an episode of the probe


def many(task_id=PROBE, num_envs=3, **options):
    """`gymnasium.make_vec`; 0.29 has to be told what from 1.0 on is the default."""
    if IS_029:
        return gymnasium.make_vec(
            task_id, num_envs, vectorization_mode="custom", vector_kwargs=options
        )
    return gymnasium.make_vec(task_id, num_envs=num_envs, **options)


def actions(env, steps, seed=0):
    """Random actions, some of them out of bounds, which the tasks clip."""
    draw = np.random.default_rng(seed)
    return draw.uniform(-1.5, 1.5, (steps, *env.action_space.shape)).astype(np.float32)


def native(num_envs, seeds, acts, name="ProbeFollow", **options):
    """Observations before each step, and steps, of our own environments with those keys."""
    env = smpo_envs.VectorEnv(smpo_envs.make(name, **options), num_envs, stagger=False)
    state = jax.jit(env.reset_each)(jax.vmap(jax.random.key)(np.uint32(seeds)))
    step, before, steps = jax.jit(env.step), [np.asarray(state.obs)], []
    for action in acts:
        state, seen = step(state, action)
        before.append(np.asarray(state.obs))
        steps.append(seen)
    return before, jax.tree.map(lambda *x: np.stack(x), *steps)


def test_importing_the_package_leaves_gymnasium_alone():
    line = "import sys, smpo_envs; smpo_envs.TASKS; assert 'gymnasium' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True)


def test_importing_the_module_costs_no_jax():
    line = "import sys, smpo_envs.gymnasium; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True)


def test_its_name_can_bring_the_module():
    line = "import gymnasium; gymnasium.make('smpo_envs.gymnasium:smpo_envs/PointRun0-v0')"
    subprocess.run([sys.executable, "-c", line], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_registered(name):
    env = gymnasium.make(f"smpo_envs/{name}-v0")
    ours = smpo_envs.make(name)
    assert env.spec.id == f"smpo_envs/{name}-v0"
    assert env.observation_space.shape == (ours.observation_size,)
    assert env.action_space.shape == (ours.action_size,)
    for space in (env.observation_space, env.action_space):
        assert space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.low, -1)
    np.testing.assert_array_equal(env.action_space.high, 1)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m:UserWarning")  # no bounds, rightly
@pytest.mark.parametrize("name", ["ProbeExits", "PointCircle1", "PointGoal1"])
def test_gymnasium_finds_nothing_wrong_with_it(name):
    from gymnasium.utils.env_checker import check_env

    check_env(gymnasium.make(f"smpo_envs/{name}-v0").unwrapped)


def test_one_has_the_numbers_of_ours_over_several_episodes():
    env = gymnasium.make(PROBE)
    acts = actions(env, 2 * SHORT + 5)
    before, steps = native(1, [7], acts[:, None])
    obs, _ = env.reset(seed=7)
    for t, action in enumerate(acts):
        np.testing.assert_array_equal(obs, before[t][0])
        obs, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(obs, steps.next_obs[t, 0])
        assert (reward, info["cost"]) == (steps.reward[t, 0], steps.cost[t, 0])
        assert (terminated, truncated) == (steps.terminated[t, 0], steps.truncated[t, 0])
        if terminated or truncated:
            obs, _ = env.reset()
    assert np.sum(steps.truncated) == 2
    assert np.sum(steps.cost) > 0


def test_costs_of_a_task_by_their_kinds():
    env = gymnasium.make("smpo_envs/PointGoal1-v0")
    env.reset(seed=0)
    info = env.step(np.zeros(2, np.float32))[-1]
    assert set(info) == {"cost", "cost_sum", "cost_hazards", "goal_met"}
    assert all(isinstance(value, float) for value in info.values())


@pytest.mark.parametrize("name", ["ProbeFollow", "ProbeExits"])
def test_many_have_the_numbers_of_ours_reset_with_the_step_that_ends(name):
    envs = many(f"smpo_envs/{name}-v0", autoreset_mode="SameStep")
    assert envs.metadata["autoreset_mode"].value == "SameStep"
    acts = np.abs(actions(envs, 25))  # to the near exit
    before, steps = native(3, [5, 6, 7], acts, name)
    obs, info = envs.reset(seed=5)
    np.testing.assert_array_equal(info["cost"], 0)
    for t, action in enumerate(acts):
        np.testing.assert_array_equal(obs, before[t])
        obs, reward, terminated, truncated, info = envs.step(action)
        assert obs.dtype == np.float32 and terminated.dtype == truncated.dtype == bool
        np.testing.assert_array_equal(reward, steps.reward[t])
        np.testing.assert_array_equal(info["cost"], steps.cost[t])
        assert info["_cost"].all()
        np.testing.assert_array_equal(terminated, steps.terminated[t])
        np.testing.assert_array_equal(truncated, steps.truncated[t])
        over = terminated | truncated
        assert ("final_obs" in info) == over.any()
        for i in np.flatnonzero(over):
            np.testing.assert_array_equal(info["final_obs"][i], steps.next_obs[t, i])
            assert info["_final_obs"][i] and info["_final_info"][i]
        if over.any():
            np.testing.assert_array_equal(info["_final_obs"], over)
            assert ("final_observation" in info) == ("final_observation" in FINAL_OBS)
    assert np.sum(steps.terminated + steps.truncated) >= 3


def test_many_wait_a_step_before_the_next_episode_if_told_to():
    envs = many(autoreset_mode="NextStep")
    assert envs.metadata["autoreset_mode"].value == "NextStep"
    acts = np.abs(actions(envs, SHORT + 6))
    before, steps = native(3, [0, 1, 2], np.delete(acts, SHORT, axis=0))
    obs, _ = envs.reset(seed=0)
    truncated, info = np.zeros(3, bool), {}
    for t in range(SHORT):
        np.testing.assert_array_equal(obs, before[t])
        obs, reward, _, truncated, info = envs.step(acts[t])
        np.testing.assert_array_equal(reward, steps.reward[t])
        np.testing.assert_array_equal(info["cost"], steps.cost[t])
    assert truncated.all() and "final_obs" not in info
    np.testing.assert_array_equal(obs, steps.next_obs[SHORT - 1])  # the last of the old episode
    obs, reward, terminated, truncated, info = envs.step(acts[SHORT])  # of no effect
    np.testing.assert_array_equal(obs, before[SHORT])
    assert not (terminated | truncated).any()
    np.testing.assert_array_equal(reward, 0)
    np.testing.assert_array_equal(info["cost"], 0)
    for t in range(SHORT, SHORT + 5):
        obs, reward, *_ = envs.step(acts[t + 1])
        np.testing.assert_array_equal(reward, steps.reward[t])


def test_some_wait_while_others_go_on():
    """Of `exits`, those that leave by the near exit begin anew; the others are where they were."""
    envs = many("smpo_envs/ProbeExits-v0", 2, autoreset_mode="NextStep")
    envs.reset(seed=0)
    out, back = np.ones((2, 1), np.float32), np.array([[1.0], [-1.0]], np.float32)
    for _ in range(2):
        obs, _, terminated, _, _ = envs.step(back)
    assert terminated.tolist() == [True, False]
    np.testing.assert_allclose(obs[:, 0], [0.5, -0.5])  # x / 4
    obs, reward, terminated, _, _ = envs.step(out)
    np.testing.assert_allclose(obs[:, 0], [0.0, -0.25])
    assert reward.tolist() == [0.0, -1.0] and not terminated.any()


def test_the_mode_is_that_of_the_installed_gymnasium_unless_given():
    usual = "SameStep" if IS_029 else "NextStep"
    assert many().metadata["autoreset_mode"].value == usual


def test_gymnasiums_own_many_of_ours_are_the_same_episodes():
    """Seeds, and each stream of episodes behind them, as Gymnasium gives them out."""
    ones = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(PROBE) for _ in range(3)])
    envs = many()
    firsts = [one.reset(seed=11)[0] for one in (ones, envs)]
    np.testing.assert_array_equal(*firsts)
    for action in actions(envs, 2 * SHORT + 5):
        theirs, ours = ones.step(action), envs.step(action)
        for a, b in zip(theirs[:4], ours[:4], strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(*[one.reset()[0] for one in (ones, envs)])


@pytest.mark.parametrize("make", [lambda: gymnasium.make(PROBE), many], ids=["one", "many"])
def test_the_same_seed_is_the_same_episode_and_another_one_another(make):
    env = make()
    first, second, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
    env.reset(seed=3)
    assert np.any(env.reset()[0] != first)  # the next episode of the stream
    assert np.any(make().reset()[0] != make().reset()[0])  # without seeds, at random


def test_each_of_many_can_have_its_own_seed():
    envs = many()
    follows, given = envs.reset(seed=4)[0], envs.reset(seed=[4, 5, 6])[0]
    np.testing.assert_array_equal(follows, given)
    with pytest.raises(ValueError, match="got 2 for num_envs=3"):
        envs.reset(seed=[1, 2])
    with pytest.raises(gymnasium.error.Error, match="-1"):
        envs.reset(seed=-1)


def test_several_costs_have_names_and_a_sum():
    env = gymnasium.make("smpo_envs/ProbeSpending-v0")
    env.reset(seed=0)
    info = env.step(np.array([0.25, 0.5], np.float32))[-1]
    names = smpo_envs.VectorEnv(smpo_envs.make("ProbeSpending"), 1).cost_names
    assert [info[f"cost_{name}"] for name in names] == [0.25, 0.5] and info["cost"] == 0.75
    envs = many("smpo_envs/ProbeSpending-v0", episode_length=1, autoreset_mode="SameStep")
    envs.reset(seed=0)
    info = envs.step(np.full((3, 2), 0.5, np.float32))[-1]
    np.testing.assert_array_equal(info["cost"], np.ones(3))
    assert info["_final_info"].all()


def test_six_values_have_the_cost_where_safety_gymnasium_has_it():
    env, envs = gymnasium.make(PROBE, six_values=True), many(six_values=True)
    env.reset(seed=0)
    envs.reset(seed=0)
    obs, reward, cost, terminated, truncated, info = env.step(np.array([0.5], np.float32))
    assert cost == info["cost"] == 0.5
    assert isinstance(reward, float) and not terminated and not truncated
    assert env.observation_space.contains(obs)
    _, _, costs, *_, infos = envs.step(np.full((3, 1), 0.25, np.float32))
    np.testing.assert_array_equal(costs, 0.25)
    np.testing.assert_array_equal(costs, infos["cost"])


def test_the_time_limit_is_an_option():
    made = [gymnasium.make(PROBE, episode_length=2), many(episode_length=2)]
    made.append(gymnasium.make(PROBE, max_episode_steps=2))
    if not IS_029:  # which overrides it by what is registered
        made.append(many(max_episode_steps=2))
    for one in made:
        one.reset(seed=0)
        action = np.zeros(one.action_space.shape, np.float32)
        ends = [one.step(action)[3] for _ in range(2)]
        assert not np.any(ends[0]) and np.all(ends[1])


def test_ones_own_environment_is_taken_as_it_is():
    from smpo_envs.gymnasium import GymnasiumEnv, GymnasiumVectorEnv

    mine = smpo_envs.make("ProbeTradeoff")
    one, many_ = GymnasiumEnv(mine), GymnasiumVectorEnv(mine, 2)
    assert one.reset(seed=0)[0].shape == (1,)
    assert many_.reset(seed=0)[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: many(autoreset_mode="Disabled"), "there are NextStep and SameStep"),
        (lambda: gymnasium.make(PROBE, render_mode="rgb_array"), "has no drawing"),
        (lambda: many(num_envs=0), "num_envs=0 must be a whole number"),
    ],
)
def test_mistakes_are_told_in_one_line(mistake, words):
    with pytest.raises(ValueError, match=words) as caught:
        mistake()
    assert "\n" not in str(caught.value)


def test_actions_of_another_shape_and_steps_before_an_episode_are_refused():
    env, envs = gymnasium.make(PROBE).unwrapped, many()
    for one in (env, envs):
        with pytest.raises(gymnasium.error.ResetNeeded):
            one.step(np.zeros(one.action_space.shape))
        one.reset()
        with pytest.raises(ValueError, match=r"got shape \[7\]"):
            one.step(np.zeros(7))


def test_views_from_above_show_the_robot_where_it_is():
    env = gymnasium.make("smpo_envs/PointGoal1-v0", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
    state = env.unwrapped._state.pipeline_state
    drawing = env.unwrapped._drawing
    at = np.asarray(drawing.poses(state)["robot"])[0, :2]
    column, row = (200 + at * [1, -1] * 200 / drawing.half_width).astype(int)
    np.testing.assert_array_equal(picture[row, column], [0x22, 0x22, 0x22])
    views = many("smpo_envs/PointCircle1-v0", 2, render_mode="rgb_array")
    views.reset(seed=0)
    assert len(views.render()) == 2
    assert gymnasium.make("smpo_envs/PointGoal1-v0").unwrapped.render() is None


def test_each_of_two_costs_is_told_with_their_sum():
    env = gymnasium.make("smpo_envs/ProbeSpending-v0")
    env.reset(seed=0)
    info = env.step(np.array([0.5, 0.25], np.float32))[-1]
    assert (info["cost_first"], info["cost_second"], info["cost"]) == (0.5, 0.25, 0.75)
    batch = many("smpo_envs/ProbeSpending-v0", 2)
    batch.reset(seed=0)
    info = batch.step(np.array([[0.5, 0.25], [-1.0, 1.0]], np.float32))[-1]
    np.testing.assert_array_equal(info["cost_first"], [0.5, 0.0])
    np.testing.assert_array_equal(info["cost"], [0.75, 1.0])
