"""brax's environments by name, with a cost: its locomotion tasks under limits on velocity.

Thresholds and what they limit are those of Safety-Gymnasium 1.0.0's tasks `Safety...Velocity-v1`
(`safety_gymnasium/tasks/safe_velocity`). The robots are brax's, under brax's physics: they move,
and earn, differently from the originals', so costs are not to be compared with published ones.
"""

import contextlib
import difflib
import io
from typing import Any, NamedTuple

from smpo_envs.from_brax import from_brax, velocity_cost
from smpo_envs.safe_env import Environment


class VelocityLimit(NamedTuple):
    """Attributes: m/s; whether of the speed in the plane, or of the velocity along x."""

    threshold: float
    planar: bool


VELOCITY_TASKS = {
    "ant": VelocityLimit(2.6222, planar=True),
    "halfcheetah": VelocityLimit(3.2096, planar=False),
    "hopper": VelocityLimit(0.7402, planar=False),
    "humanoid": VelocityLimit(1.4149, planar=True),
    "swimmer": VelocityLimit(0.2282, planar=False),
    "walker2d": VelocityLimit(2.3415, planar=False),
}


def make(
    name: str,
    *,
    episode_length: int | None = None,
    cost: str | None = None,
    velocity_threshold: float | None = None,
    **options: Any,
) -> Environment:
    """Brax's environment of that name.

    Args:
        name: as brax calls it.
        episode_length: the time limit; unless given, 1000 steps.
        cost: where its cost is, "metrics.NAME" or "info.NAME", several with commas between them;
            unless given, of a locomotion task 1 in each step that is faster than the threshold.
        velocity_threshold: another one than the published, m/s.
        options: what brax's class takes, `backend` for instance.

    Raises:
        ValueError: brax is not installed or has no such environment or option, or there is no cost.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of extras that are not installed
            from brax import envs
    except ImportError as error:
        raise ValueError(
            f"brax:{name} needs the package brax ({error}): pip install brax, "
            'or pip install -e ".[brax]" in a clone'
        ) from error
    try:
        env = envs.get_environment(name, **options)
    except KeyError as error:
        known = sorted(getattr(envs, "_envs", VELOCITY_TASKS))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean brax:{near[0]}? " if near else ""
        raise ValueError(f"brax has no {name!r}: {hint}It has {', '.join(known)}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"brax:{name}: {error}") from error
    limit = VELOCITY_TASKS.get(name)
    if cost is None and limit is not None:
        threshold = limit.threshold if velocity_threshold is None else float(velocity_threshold)
        charged = velocity_cost(threshold, planar=limit.planar)
        return from_brax(env, episode_length=episode_length, cost=charged)
    if velocity_threshold is not None:
        raise ValueError(
            f"velocity_threshold: brax:{name} has none with this cost; those with a cost of "
            f"velocity are {', '.join(VELOCITY_TASKS)}"
        )
    return from_brax(env, episode_length=episode_length, cost=cost)
