"""Button: touch the lit one of four buttons, not the others; keep off hazards and gremlins.

For ten steps after a press the buttons cannot be seen, and touching a wrong one is free. Nothing
keeps the robot from pressing again at once, if the same button is lit again.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from smpo_envs.safety_gym import costs, levels
from smpo_envs.safety_gym.arena import Arena, distance
from smpo_envs.safety_gym.levels import BUTTONS, GREMLINS, Level
from smpo_envs.safety_gym.task import REWARD_LIMIT, Outcome, Task, maker
from smpo_envs.safety_gym.worlds import Motion
from smpo_envs.sparse import apply_where

HAZARD_RADIUS = 0.2
NUMBER = 4  # of buttons
TIMER = 10  # steps after a press in which buttons are dark
# In the layout only: the lit button is the goal.
GOAL = levels.goal(radius=0.2, keepout=0.4)
HAZARDS = levels.hazards(HAZARD_RADIUS, keepout=0.18)
COSTS = (costs.in_hazards(HAZARD_RADIUS), costs.GREMLINS_CONTACT, costs.WRONG_BUTTON)

LEVELS = (
    Level(extent=1.0, objects=((BUTTONS, NUMBER), (GOAL, 1))),
    Level(
        extent=1.5,
        objects=((BUTTONS, NUMBER), (GOAL, 1), (HAZARDS, 4), (GREMLINS, 4)),
        costs=COSTS,
    ),
    Level(
        extent=1.8,
        objects=((BUTTONS, NUMBER), (GOAL, 1), (HAZARDS, 8), (GREMLINS, 6)),
        costs=COSTS,
    ),
)


class ButtonState(NamedTuple):
    """Where everything is.

    Attributes:
        arena: all there is.
        lit: which button is to be pressed.
        distance: of the robot from it, from which the next reward is measured.
        timer: steps for which buttons stay dark.
        key: for the buttons still to be drawn; advances only when one is.
    """

    arena: Arena
    lit: Int[Array, ""]
    distance: Float[Array, ""]
    timer: Int[Array, ""]
    key: PRNGKeyArray


def state_of(
    around: Arena, lit: Int[Array, ""], timer: Int[Array, ""], key: PRNGKeyArray
) -> ButtonState:
    """The state in which things stand like this; the next reward is measured from here."""
    agent = around.world.robot.position
    return ButtonState(around, lit, distance(around.world.fixed[lit], agent), timer, key)


def start(
    level: Level, around: Arena, goal_key: PRNGKeyArray, next_key: PRNGKeyArray
) -> ButtonState:
    """Any button lit, all of them seen."""
    del level, next_key
    lit, key = _draw((jnp.int32(0), goal_key), number=len(around.world.fixed))
    return state_of(around, lit, jnp.int32(0), key)


def judge(level: Level, before: ButtonState, now: Arena, motion: Motion) -> Outcome:
    """The reward, then another button if the lit one is pressed."""
    del level
    buttons = now.world.fixed
    pressed = motion.fixed_contacts[before.lit] > 0
    reached = distance(buttons[before.lit], now.world.robot.position)
    exempt = (jnp.arange(len(buttons)) == before.lit) | (before.timer > 0)

    lit, key = apply_where(
        partial(_draw, number=len(buttons)), pressed, (before.lit, before.key), rate=1 / 128
    )
    timer = jnp.where(pressed, TIMER, jnp.maximum(before.timer - 1, 0))
    reward = progress(before.distance, reached, pressed)
    return Outcome(state_of(now, lit, timer, key), reward, pressed, exempt=exempt)


def _draw(
    state: tuple[Int[Array, ""], PRNGKeyArray], *, number: int
) -> tuple[Int[Array, ""], PRNGKeyArray]:
    """A button, perhaps the same one again, and the next key."""
    draw_key, next_key = jax.random.split(state[1])
    return jax.random.randint(draw_key, (), 0, number, jnp.int32), next_key


def progress(
    last: Float[Array, ""], distance: Float[Array, ""], pressed: Bool[Array, ""]
) -> Float[Array, ""]:
    """The reward of coming from one distance of the lit button to another.

        r = last - distance + [pressed]

    Both are distances to the button of this step, so there is no jump when another one is lit.
    """
    return jnp.clip(last - distance + pressed, -REWARD_LIMIT, REWARD_LIMIT)


TASK = Task(
    start,
    judge,
    goal=lambda state: state.arena.world.fixed[state.lit],
    hidden=lambda state: {BUTTONS.name: state.timer > 0},
)
make = maker(TASK, LEVELS)
