"""What each reading of SMPO pays four scripted policies on PointGoal1, without any training.

    python configs/suites/readings.py  # writes reports/paper-readings/scripted.csv and prints it

The policies drive to the goal through whatever is in the way, stand in the nearest hazard, run away
from the goal, and stand until the budget is spent and then run away. All begin on the same 64
layouts. The safety critic is the one that eq. 3 leads to on the path that was driven (`hindsight`);
the baseline of an advantage is the mean over the four policies, which are a batch in equal parts.
"""

import argparse
import csv
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import smpo_envs
from smpo_jax.algorithms.smpo import SMPOCode, SMPOEarlier, SMPOPaper
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.core.surrogate import standardise
from smpo_jax.networks import DEFAULT
from smpo_jax.types import EpisodeStats, Rollout, Spec, Transition

Steps = Float[Array, "T N"]

TASK, LIMIT, LENGTH, LAYOUTS = "PointGoal1", 25.0, 1000, 64
BEYOND = 200  # steps played after the episode's end: what its last costs lead to
DISCOUNT = 0.99  # of rewards and costs
DONE_TURNING = 0.3  # rad
READINGS = {"smpo-paper": SMPOPaper, "smpo-code": SMPOCode, "smpo-earlier": SMPOEarlier}


class Paid(NamedTuple):
    """What a reading pays a policy; means over episodes, or over their steps.

    Attributes:
        weight: mean f.
        negative: share of steps with f < 0.
        modulated: undiscounted return of M(r); of a reading that modulates the advantage, that of
            f (r + shift).
        advantage: mean of the standardised advantage as the policy is paid it. Where it is above
            0, an update makes what the policy did more likely.
    """

    weight: float
    negative: float
    modulated: float
    advantage: float


# The policies: `(state, cost so far) -> action`, the drive and the turn.


def towards(state: Any, target: Float[Array, " 2"], speed: float = 1.0) -> Float[Array, " 2"]:
    """Turns to a place and drives, once it is ahead."""
    ahead, left = state.pipeline_state.arena.world.robot.in_frame(target[None])
    angle = jnp.arctan2(left[0], ahead[0])
    return jnp.stack([jnp.where(jnp.abs(angle) < DONE_TURNING, speed, 0.0), 2.0 * angle])


def drive(state: Any, spent: Float[Array, ""]) -> Float[Array, " 2"]:
    """To the goal, whatever is in the way."""
    del spent
    return towards(state, state.pipeline_state.goal)


def stand(state: Any, spent: Float[Array, ""]) -> Float[Array, " 2"]:
    """Into the nearest hazard, and there it stays."""
    del spent
    robot, hazards = _robot(state), state.pipeline_state.arena.markers["hazards"]
    distance = jnp.linalg.norm(hazards - robot.position[None], axis=-1)
    nearest = hazards[jnp.argmin(distance)]
    brake = jnp.stack([-5.0 * _speed(robot), 0.0])
    near = jnp.min(distance) < 0.12
    return jnp.where(near, brake, towards(state, nearest, speed=0.02))


def run_away(state: Any, spent: Float[Array, ""]) -> Float[Array, " 2"]:
    """Away from the goal."""
    del spent
    robot = _robot(state)
    return towards(state, 2.0 * robot.position - state.pipeline_state.goal)


def stand_then_run(state: Any, spent: Float[Array, ""]) -> Float[Array, " 2"]:
    """In a hazard until the paper's first threshold, 2 d, is spent, then away from the goal."""
    over = spent > 2.0 * LIMIT
    return jnp.where(over, run_away(state, spent), stand(state, spent))


POLICIES: Mapping[str, Callable[[Any, Float[Array, ""]], Float[Array, " 2"]]] = {
    "drives": drive,
    "stands in a hazard": stand,
    "runs away": run_away,
    "stands, then runs away": stand_then_run,
}


def _robot(state: Any) -> Any:
    return state.pipeline_state.arena.world.robot


def _speed(robot: Any) -> Float[Array, ""]:
    """Straight ahead, m/s."""
    heading = jnp.stack([jnp.cos(robot.heading), jnp.sin(robot.heading)])
    return jnp.sum(robot.velocity * heading)


@partial(jax.jit, static_argnums=0)
def play(
    policy: Callable[[Any, Float[Array, ""]], Float[Array, " 2"]], keys: jax.Array
) -> tuple[Steps, Steps]:
    """Rewards and costs of an episode for each key, and of `BEYOND` steps after it."""
    env: Any = smpo_envs.make(TASK)

    def one(key: jax.Array) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
        def step(carry: Any, _: None) -> Any:
            state, spent = carry
            state = env.step(state, policy(state, spent))
            cost = state.info["cost"]
            return (state, spent + cost), (state.reward, cost)

        first = (env.reset(key), jnp.zeros(()))
        _, seen = jax.lax.scan(step, first, None, length=LENGTH + BEYOND)
        return seen

    reward, cost = jax.vmap(one)(keys)
    return reward.T, cost.T


# What they are paid.


def hindsight(cost: Steps, *, discount: float, regularisation: float) -> Steps:
    """Where eqs. 2 and 3 lead Q^c on a path: Q_t = (c_t + γ Q_{t+1}) / (1 + λ), 0 after the last.

    The least of (Q − y)² + λ Q² is at Q = y / (1 + λ).
    """

    def step(after: Float[Array, " N"], now: Float[Array, " N"]) -> Any:
        q = (now + discount * after) / (1.0 + regularisation)
        return q, q

    _, q = jax.lax.scan(step, jnp.zeros_like(cost[0]), cost, reverse=True)
    return q


def to_go(reward: Steps, discount: float) -> Steps:
    """Discounted sums of the rewards from each step to the last."""
    return hindsight(reward, discount=discount, regularisation=0.0)


def advantage(reward: Steps, discount: float = DISCOUNT) -> Steps:
    """The discounted reward to go, less its mean over all columns at that step; standardised."""
    ahead = to_go(reward, discount)
    return standardise(ahead - jnp.mean(ahead, axis=1, keepdims=True))


def pay(settings: Any, reward: Steps, cost: Steps, threshold: float) -> tuple[Steps, ...]:
    """What a reading makes of episodes: f, the modulated reward, the advantage as it is paid.

    Args:
        settings: a preset of SMPO's.
        reward: of episodes, a column each.
        cost: likewise, and of some steps more, which Q^c of the last ones depends on.
        threshold: d'.
    """
    length, episodes = reward.shape
    none, blank = jnp.zeros_like(reward), jnp.zeros((*reward.shape, 1))
    dist = DiagonalGaussian(blank, blank)
    own = cost[:length]
    spent = jnp.cumsum(own, axis=0) - own
    transition = Transition(blank, blank, none, dist, reward, own, none, none, blank)
    nothing = EpisodeStats(*(jnp.zeros(()) for _ in EpisodeStats._fields))
    rollout = Rollout(transition, spent, none, nothing)
    spec = Spec(1, 1, episodes, length, episode_length=length, total_iterations=1, cost_limit=LIMIT)
    ac = settings.improver(spec, DEFAULT).ac
    modulation = settings.modulation(spec, settings.critic(ac).learning)
    q = hindsight(
        cost, discount=settings.cost_discount, regularisation=settings.cost_regularisation
    )
    f = modulation.weigh(rollout, q[:length], jnp.asarray(threshold), is_on=jnp.asarray(True)).value
    shift = modulation.shift(transition)
    learnt = modulation.reward(reward, f, shift)
    shown = f * learnt if settings.modulates == "advantage" else learnt
    return f, shown, modulation.advantage(advantage(learnt), f)


def rows() -> list[dict[str, Any]]:
    """A row for each reading, threshold and policy; first what the task itself pays."""
    keys = jax.random.split(jax.random.key(0), LAYOUTS)
    played = {name: play(policy, keys) for name, policy in POLICIES.items()}
    reward, cost = (jnp.concatenate([seen[i] for seen in played.values()], axis=1) for i in (0, 1))
    reward, own = reward[:LENGTH], cost[:LENGTH]
    plain = (jnp.ones_like(reward), reward, advantage(reward))
    found = {("the task's reward", "none"): plain}
    for name, preset in READINGS.items():
        made: Any = preset(minibatches=1, cost_minibatches=1)
        for factor in sorted({made.threshold_factor, 1.0}, reverse=True):
            found[name, f"{factor * LIMIT:g}"] = pay(made, reward, cost, factor * LIMIT)
    written = []
    for (reading, threshold), steps in found.items():
        for i, policy in enumerate(POLICIES):
            ours = slice(i * LAYOUTS, (i + 1) * LAYOUTS)
            f, shown, paid = (np.asarray(x)[:, ours] for x in steps)
            score = Paid(f.mean(), (f < 0).mean(), shown.sum(0).mean(), paid.mean())
            written.append(
                {
                    "reading": reading,
                    "threshold": threshold,
                    "policy": policy,
                    "return": float(np.asarray(reward)[:, ours].sum(0).mean()),
                    "cost": float(np.asarray(own)[:, ours].sum(0).mean()),
                    **{field: float(value) for field, value in score._asdict().items()},
                }
            )
    return written


def as_markdown(table: list[dict[str, Any]]) -> str:
    """The table of the report."""
    cells = [[f"{x:.2f}" if isinstance(x, float) else x for x in row.values()] for row in table]
    head = list(table[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


def main() -> None:
    """Plays, writes the table and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out = Path(__file__).parent / "reports" / "paper-readings"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    table = rows()
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "scripted.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in table
        )
    print(as_markdown(table))


if __name__ == "__main__":
    main()
