"""Many episodes of rough driving: nothing becomes NaN, sinks into anything, or flies away."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smpo_envs.naming import make
from smpo_envs.registry import TASKS
from smpo_envs.safety_gym import agents, collision, gremlins, island, physics, scalars, touches
from smpo_envs.safety_gym.button import LEVELS as BUTTON
from smpo_envs.safety_gym.collision import Box, Post
from smpo_envs.safety_gym.goal import LEVELS as GOAL
from smpo_envs.safety_gym.push import LEVELS as PUSH
from smpo_envs.safety_gym.worlds import box_positions
from smpo_envs.vector_env import VectorEnv

ROUGH = {"Goal": GOAL, "Button": BUTTON, "Push": PUSH}
DEEP = 0.02  # m
# Gremlins weigh so little and contacts are so soft that the robot's ball sinks deeper: driven like
# half of the robots here, that of SafetyPointButton1-v0 on MuJoCo 2.3.3 was deeper than 2 cm in
# 2.7 of 1000 steps, than 3 cm in 0.8, and at most 4.1 cm deep, in 100 episodes; ours in 1500 was in
# 2.1, in 0.4, and at most 4.0 cm. (On MuJoCo 4, which lets gremlins turn away, 2.1 cm in 60
# episodes.) A gremlin whose spring pulls it through a button, in SafetyPointButton2-v0, comes to
# 8 cm.
DEEP_IN_GREMLIN = 0.05  # m
# The original lets a push box begin inside a pillar, which then pushes it away.
SETTLING = 50  # steps
BATCH = 500


def depths(solids, world):
    """How deep the robot is in the worst thing that stands fast, and in the worst box, m; [E] each.

    Everything is looked at, not only what a step takes to be near.
    """
    mechanics = physics.mechanics_of(world.robot)
    positions = jax.vmap(box_positions)(world)
    number = positions.shape[1]
    all_boxes = jnp.broadcast_to(jnp.arange(number), positions.shape[:2])
    absolute = world.boxes._replace(position=positions)
    start = world.robot.start
    here = island.gather(mechanics.gather(world.robot), start, absolute, all_boxes)
    posts = (world.fixed - start[:, None]).transpose(2, 1, 0)
    nowhere = jnp.zeros((2, 0, number, len(start)))
    rotation = scalars.rotation_matrices(here.quaternion)
    found = [jnp.full(len(start), -jnp.inf)] * 2
    if solids.post is not None and posts.shape[1]:
        around = island.Surroundings(None, solids.post, posts, nowhere, None)
        found[0] = -mechanics.gap(around, here, rotation)
    if solids.body is not None and number:
        around = island.Surroundings(solids.body, Post(0.0), posts[:, :0], nowhere, None)
        found[1] = -mechanics.gap(around, here, rotation)
    return found


def overlap(solids, world):
    """How deep the worst of any two bodies are in each other, in units of what is bearable; [E]."""
    bearable = DEEP_IN_GREMLIN if solids.body == gremlins.GREMLIN else DEEP
    in_post, in_box = depths(solids, world)
    deep = [in_post / DEEP, in_box / bearable]
    posts = world.fixed.transpose(2, 1, 0)
    if solids.body is not None and solids.post is not None and posts.shape[1]:
        posts = jnp.concatenate([posts, jnp.full_like(posts[:1], touches.BALL_HEIGHT)])
        position = jax.vmap(box_positions)(world).transpose(2, 1, 0)
        axes = scalars.rotation_matrices(world.boxes.quaternion.transpose(2, 1, 0))
        boxes, half = touches.core_of(solids.body, position, axes), solids.body.core
        wide = Box(boxes.center[:, None], boxes.axes[:, :, None])
        touch = collision.post_and_box(solids.post, posts[:, :, None], wide, half)
        deep.append(-touch.distance[0].min((0, 1)) / bearable)
    return jnp.stack(deep).max(0)


def summary(solids, state, carry):
    """What to remember of a step: (overlap in the last one, counts of what must not be)."""
    was_deep, bad = carry
    world = state.env.pipeline_state.arena.world
    deep = overlap(solids, world) > 1
    settled = state.steps > SETTLING
    leaves = [*world.robot, *world.boxes, state.env.obs]
    finite = jnp.stack([jnp.isfinite(x).reshape(len(x), -1).all(1) for x in leaves]).all(0)
    speed = jnp.abs(world.boxes.velocity).reshape(len(deep), -1)
    height = jnp.abs(world.boxes.position[..., 2])
    wild = jnp.any(speed > 5, axis=1) | jnp.any(height > 1, axis=1)
    wrong = jnp.stack([~finite, deep & was_deep & settled, wild])
    return deep, bad + wrong.sum(1)


@partial(jax.jit, static_argnums=(0, 1))
def drive(env, solids, key):
    """One episode of each environment; half of them hold each action for 40 steps."""
    reset_key, action_key = jax.random.split(key)
    state = env.reset(reset_key)

    def step(carry, now):
        state, held, remembered = carry
        i, key = now
        new = jax.random.uniform(key, held.shape, minval=-1.0)
        patient = (jnp.arange(BATCH) < BATCH // 2)[:, None]
        held = jnp.where(patient & (i % 40 != 0), held, new)
        state, _ = env.step(state, held)
        return (state, held, summary(solids, state, remembered)), None

    start = (state, jnp.zeros((BATCH, 2)), (jnp.zeros(BATCH, bool), jnp.zeros(3, jnp.int32)))
    keys = jax.random.split(action_key, 1000)
    (_, _, (_, bad)), _ = jax.lax.scan(step, start, (jnp.arange(1000), keys))
    return bad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "agent", "levels"),
    [
        pytest.param(name, agent, ROUGH[task], id=name)
        for name in TASKS
        for agent in agents.AGENTS
        for task in ROUGH
        if name.startswith(agent + task)
    ],
)
def test_ten_thousand_episodes_without_nan_penetration_or_explosion(name, agent, levels):
    level = agents.named(agent).fitted(levels[int(name[-1])])
    env = VectorEnv(make(name), BATCH, stagger=False)
    runs = [drive(env, level.solids, jax.random.key(i)) for i in range(10_000 // BATCH)]
    bad = np.sum(runs, axis=0)
    assert not np.any(bad), dict(zip(("NaN", "inside", "wild"), bad, strict=True))
