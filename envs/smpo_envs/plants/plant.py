"""What all plants share: an episode of set points to follow and limits to keep.

A step, in the order of pcgym 0.1.8 (Bloor et al. 2024, arXiv:2410.22093), with which recordings are
compared: the input is held while the equations are solved over the step; the state there is charged
for being beyond its limits and paid by how far it is from the set point of that time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smpo_envs.plants.ode import integrate
from smpo_envs.safe_env import Environment, Reading, State

MOST_DELAY = 100  # steps
Parameters = Any  # a plant's own NamedTuple of numbers


class Quantity(NamedTuple):
    """A number that is measured or set, and the range that is scaled to [-1, 1]."""

    name: str
    unit: str
    low: float
    high: float


class Limit(NamedTuple):
    """What a state must not be beyond.

    Attributes:
        state: its index.
        low: it may be this, or above.
        high: it may be this, or below.
        price: cost of a step for each unit of the state beyond a limit.
    """

    state: int
    low: float
    high: float
    price: float


class Scenario(NamedTuple):
    """What an episode is given. Row 0 is how it starts; row t is what holds in the step to time t.

    Attributes:
        start: the state at the start.
        set_points: of the tracked states, in their units.
        disturbances: what acts from outside, in its units.
    """

    start: Float[Array, " S"]
    set_points: Float[Array, "T K"]
    disturbances: Float[Array, "T D"]


@dataclass(frozen=True)
class Plant:
    """A plant as a value.

    Attributes:
        rates: `(parameters, state [S], inputs [A], disturbances [D])` -> d state / d time, `[S]`.
        parameters: as published.
        uncertain: the parameters that may be off.
        states: what its states are.
        inputs: what is set.
        disturbances: what acts from outside.
        tracked: indices of the states that have a set point.
        targets: what the set points are.
        weights: of the squared errors of the tracked states, in the reward.
        limits: on its states.
        step: time from one decision to the next.
        shares: the parameters that cannot be above 1.
    """

    rates: Callable[..., Float[Array, " S"]]
    parameters: Parameters
    uncertain: tuple[str, ...]
    states: tuple[Quantity, ...]
    inputs: tuple[Quantity, ...]
    disturbances: tuple[Quantity, ...]
    tracked: tuple[int, ...]
    targets: tuple[Quantity, ...]
    weights: tuple[float, ...]
    limits: tuple[Limit, ...]
    step: float
    shares: tuple[str, ...] = ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Faults:
    """How far a plant and its instruments are from the ones on paper.

    Attributes:
        spread: each uncertain parameter is multiplied by a number drawn anew for each episode,
            uniformly from 1 - spread to 1 + spread.
        noise: standard deviation of readings of the state, as a share of the true value.
        delay: steps by which inputs come late. Those before the first are mid-range.

    Raises:
        ValueError: a number out of bounds.
    """

    spread: float = 0.0
    noise: float = 0.0
    delay: int = 0

    def __post_init__(self) -> None:
        for name, value in (("spread", self.spread), ("noise", self.noise)):
            if not (_is_number(value) and 0.0 <= value < 1.0):
                raise ValueError(f"{name}={value!r}: expected a share, 0 or more and below 1")
        if not (_is_number(self.delay) and self.delay in range(MOST_DELAY + 1)):
            raise ValueError(
                f"delay={self.delay!r}: expected a whole number of steps, 0 to {MOST_DELAY}"
            )


PERFECT = Faults()


class PlantState(NamedTuple):
    """Where a plant is in its episode.

    Attributes:
        state: of its equations, in their units.
        parameters: of this episode.
        scenario: of this episode.
        waiting: inputs that are yet to arrive, the next one first.
        time: steps so far.
        key: of the readings' noise.
    """

    state: Float[Array, " S"]
    parameters: Parameters
    scenario: Scenario
    waiting: Float[Array, "W A"]
    time: Int[Array, ""]
    key: PRNGKeyArray


def minus_error(error: Float[Array, ""]) -> Float[Array, ""]:
    """The reward of pcgym, 0 at best."""
    return -error


def closeness(error: Float[Array, ""]) -> Float[Array, ""]:
    """A reward between 0 and 1, for methods that multiply rewards: 1 / (1 + error)."""
    return 1.0 / (1.0 + error)


def environment(
    plant: Plant,
    draw: Callable[[PRNGKeyArray], Scenario],
    episode_length: int,
    faults: Faults = PERFECT,
    pay: Callable[[Float[Array, ""]], Float[Array, ""]] = minus_error,
) -> Environment:
    """A task of a plant.

    Args:
        plant: which.
        draw: the scenario of an episode.
        episode_length: steps after which it is cut.
        faults: what is not as on paper.
        pay: the reward of a tracking error.
    """
    shown = (*plant.states, *plant.targets, *plant.disturbances)
    return Environment(
        partial(reset, plant, draw, faults),
        partial(step, plant, faults, pay),
        len(shown),
        len(plant.inputs),
        episode_length,
        readings=tuple(Reading(_scaled_name(quantity), 1, "1") for quantity in shown),
    )


class Draw(Protocol):
    """How the scenario of an episode of so many steps is drawn."""

    def __call__(self, key: PRNGKeyArray, *, steps: int) -> Scenario:
        """A scenario of `steps` + 1 rows."""
        ...


def maker(plant: Plant, benchmark: Draw, drawn: Draw, usual_length: int) -> Callable:
    """The function that makes a plant's task, with its options by name.

    Args:
        plant: as published.
        benchmark: the scenario of `fixed` episodes.
        drawn: that of the others.
        usual_length: of an episode, in steps.
    """

    def make(
        *,
        fixed: bool = False,
        bounded: bool = False,
        spread: float = 0.0,
        noise: float = 0.0,
        delay: int = 0,
        episode_length: int = usual_length,
        **parameters: float,
    ) -> Environment:
        """The task.

        Args:
            fixed: every episode is pcgym's benchmark; otherwise it is drawn anew.
            bounded: the reward is 1 / (1 + error) instead of minus the error.
            spread: see `Faults`.
            noise: see `Faults`.
            delay: see `Faults`.
            episode_length: steps after which an episode is cut.
            parameters: others than those published, by their names.

        Raises:
            ValueError: an option or a value that does not make sense.
        """
        faults = Faults(spread, noise, delay)
        own = replace(plant, parameters=_with_values(plant.parameters, parameters))
        for name in own.shares:
            share = getattr(own.parameters, name)
            if share * (1 + spread) > 1:
                raise ValueError(f"{name}={share!r}, spread={spread!r}: a share cannot be above 1")
        draw = partial(benchmark if _is_on("fixed", fixed) else drawn, steps=episode_length)
        pay = closeness if _is_on("bounded", bounded) else minus_error
        return environment(own, draw, episode_length, faults, pay)

    return make


def _is_on(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be true or false")
    return value


def _with_values(parameters: Parameters, values: dict[str, float]) -> Parameters:
    for name, value in values.items():
        if name not in parameters._fields:
            known = ", ".join(parameters._fields)
            raise ValueError(f"{name}={value!r}: no such option; parameters are {known}")
        if not (_is_number(value) and 0 < value < math.inf):
            raise ValueError(f"{name}={value!r} must be a number above 0")
    return parameters._replace(**values)


def pieces(values: Float[Array, "L ..."], steps: int) -> Float[Array, "T ..."]:
    """Values that each hold for an equal part of an episode of so many steps, and its start."""
    return values[jnp.arange(steps + 1) * len(values) // (steps + 1)]


def reset(
    plant: Plant, draw: Callable[[PRNGKeyArray], Scenario], faults: Faults, key: PRNGKeyArray
) -> State:
    """The first state of a new episode."""
    dtype = jnp.result_type(float)
    scenario_key, parameter_key, noise_key = jax.random.split(key, 3)
    scenario = jax.tree.map(lambda x: jnp.asarray(x, dtype), draw(scenario_key))
    middle = jnp.array([(each.low + each.high) / 2 for each in plant.inputs], dtype)
    inside = PlantState(
        scenario.start,
        _parameters(plant, faults.spread, parameter_key),
        scenario,
        jnp.tile(middle, (int(faults.delay), 1)),
        jnp.zeros((), jnp.int32),
        noise_key,
    )
    inside, obs = _observe(plant, faults, inside)
    zero = jnp.zeros((), dtype)
    metrics = {"cost_sum": zero, "violated": zero, "error": zero}
    return State(inside, obs, zero, zero, metrics=metrics, info={"cost": zero})


def step(
    plant: Plant,
    faults: Faults,
    pay: Callable[[Float[Array, ""]], Float[Array, ""]],
    state: State,
    action: Float[Array, " A"],
) -> State:
    """One step: the input is held, then the new state is charged and paid."""
    before = state.pipeline_state
    given = unscaled(plant.inputs, jnp.clip(action, -1.0, 1.0))
    waiting = jnp.concatenate([before.waiting, given[None].astype(before.state.dtype)])
    inputs, time = waiting[0], before.time + 1
    acting = before.scenario.disturbances[time]
    after = integrate(
        lambda x: plant.rates(before.parameters, x, inputs, acting), before.state, plant.step
    )
    inside, obs = _observe(
        plant, faults, before._replace(state=after, waiting=waiting[1:], time=time)
    )
    cost = violation(plant, after)
    error = tracking_error(plant, after, before.scenario.set_points[time])
    shown = {"cost_sum": cost, "violated": (cost > 0).astype(cost.dtype), "error": error}
    return state.replace(
        pipeline_state=inside,
        obs=obs,
        reward=pay(error),
        done=jnp.zeros((), cost.dtype),
        metrics={**state.metrics, **shown},
        info={**state.info, "cost": cost},
    )


def tracking_error(
    plant: Plant, state: Float[Array, " S"], set_points: Float[Array, " K"]
) -> Float[Array, ""]:
    """The weighted sum of squared distances of the tracked states from their set points."""
    weights = jnp.array(plant.weights, state.dtype)
    return jnp.sum(weights * (state[jnp.array(plant.tracked)] - set_points) ** 2)


def violation(plant: Plant, state: Float[Array, " S"]) -> Float[Array, ""]:
    """By how much the limits are broken, each in its own unit of cost."""
    index, low, high, price = (jnp.array(column) for column in zip(*plant.limits, strict=True))
    x = state[index]
    return jnp.sum(price * jnp.maximum(jnp.maximum(x - high, low - x), 0.0)).astype(state.dtype)


def scaled(quantities: tuple[Quantity, ...], values: Float[Array, " Q"]) -> Float[Array, " Q"]:
    """Values in their units -> [-1, 1]."""
    low, width = _ranges(quantities, values.dtype)
    return 2.0 * (values - low) / width - 1.0


def unscaled(quantities: tuple[Quantity, ...], values: Float[Array, " Q"]) -> Float[Array, " Q"]:
    """The inverse of `scaled`."""
    low, width = _ranges(quantities, values.dtype)
    return low + (values + 1.0) / 2.0 * width


def _observe(
    plant: Plant, faults: Faults, inside: PlantState
) -> tuple[PlantState, Float[Array, " O"]]:
    """Readings of the state, set points of the coming step, and disturbances of the last."""
    state, scenario, time = inside.state, inside.scenario, inside.time
    readings, key = state, inside.key
    if faults.noise:
        now, key = jax.random.split(key)
        readings = state * (1.0 + faults.noise * jax.random.normal(now, state.shape, state.dtype))
    parts = (
        scaled(plant.states, readings),
        scaled(plant.targets, scenario.set_points[time + 1]),
        scaled(plant.disturbances, scenario.disturbances[time]),
    )
    return inside._replace(key=key), jnp.concatenate(parts)


def _parameters(plant: Plant, spread: float, key: PRNGKeyArray) -> Parameters:
    dtype = jnp.result_type(float)
    drawn = 1.0 + spread * jax.random.uniform(key, (len(plant.uncertain),), dtype, minval=-1.0)
    factors = dict(zip(plant.uncertain, drawn, strict=True))
    return plant.parameters._replace(
        **{
            name: jnp.asarray(value, dtype) * factors.get(name, 1.0)
            for name, value in plant.parameters._asdict().items()
        }
    )


def _ranges(quantities: tuple[Quantity, ...], dtype: Any) -> tuple[jax.Array, jax.Array]:
    low = jnp.array([each.low for each in quantities], dtype)
    return low, jnp.array([each.high for each in quantities], dtype) - low


def _scaled_name(quantity: Quantity) -> str:
    return f"{quantity.name}, {quantity.low:g} to {quantity.high:g} {quantity.unit} as -1 to 1"
