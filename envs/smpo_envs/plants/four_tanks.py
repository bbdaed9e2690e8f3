"""Four tanks and two pumps, each of which fills a lower tank and the upper tank above the other.

Equations: Johansson (2000), The quadruple-tank process, IEEE Trans. Control Syst. Technol. 8(3),
456-465; numbers, ranges and set points: pcgym 0.1.8, whose tanks are larger (see README.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.plants.plant import Limit, Plant, Quantity, Scenario, maker, pieces

EPISODE_LENGTH = 59
STEP = 1000 / 60  # s
HIGHEST = 0.25  # level that the lower tanks should not exceed, m
START = (0.141, 0.112, 0.072, 0.42)
SET_POINTS = ((0.5, 0.2), (0.1, 0.3))  # of tanks 3 and 4, half an episode each
CENTIMETRES = 100.0  # in a metre


class Parameters(NamedTuple):
    """Of tanks and pumps; defaults are pcgym's."""

    gravity: float = 9.81  # g, m/s²
    split_1: float = 0.2  # gamma_1, share of pump 1 that goes to tank 1; the rest to tank 4
    split_2: float = 0.2  # gamma_2, share of pump 2 that goes to tank 2; the rest to tank 3
    pump_1: float = 0.00085  # k_1, m³/(V s)
    pump_2: float = 0.00095  # k_2, m³/(V s)
    outlet_1: float = 0.0035  # a_1, m²
    outlet_2: float = 0.0030  # a_2, m²
    outlet_3: float = 0.0020  # a_3, m²
    outlet_4: float = 0.0025  # a_4, m²
    area_1: float = 1.0  # A_1, m²
    area_2: float = 1.0  # A_2, m²
    area_3: float = 1.0  # A_3, m²
    area_4: float = 1.0  # A_4, m²


def rates(
    p: Parameters,
    state: Float[Array, " 4"],
    inputs: Float[Array, " 2"],
    disturbances: Float[Array, " 0"],
) -> Float[Array, " 4"]:
    """Of the levels (m), per second.

    Args:
        p: parameters, in any consistent units.
        state: levels of tanks 1 to 4.
        inputs: voltages of pumps 1 and 2, V.
        disturbances: none.
    """
    del disturbances
    outlets = jnp.stack([p.outlet_1, p.outlet_2, p.outlet_3, p.outlet_4])
    areas = jnp.stack([p.area_1, p.area_2, p.area_3, p.area_4])
    # Estimates within a step may be a little below an empty tank.
    out = outlets * jnp.sqrt(2.0 * p.gravity * jnp.maximum(state, 0.0))
    flow_1, flow_2 = p.pump_1 * inputs[0], p.pump_2 * inputs[1]
    into = jnp.stack(
        [
            out[2] + p.split_1 * flow_1,
            out[3] + p.split_2 * flow_2,
            (1.0 - p.split_2) * flow_2,
            (1.0 - p.split_1) * flow_1,
        ]
    )
    return (into - out) / areas


PLANT = Plant(
    rates=rates,
    parameters=Parameters(),
    uncertain=(
        *("split_1", "split_2", "pump_1", "pump_2"),
        *("outlet_1", "outlet_2", "outlet_3", "outlet_4"),
    ),
    states=tuple(Quantity(f"level of tank {i}", "m", 0.0, 0.6) for i in (1, 2, 3, 4)),
    inputs=tuple(Quantity(f"voltage of pump {i}", "V", 0.1, 10.0) for i in (1, 2)),
    disturbances=(),
    tracked=(2, 3),
    targets=tuple(Quantity(f"level of tank {i} wanted", "m", 0.0, 0.6) for i in (3, 4)),
    weights=(1e2, 1e2),
    limits=tuple(Limit(tank, 0.0, HIGHEST, CENTIMETRES) for tank in (0, 1)),
    step=STEP,
    shares=("split_1", "split_2"),
)


def benchmark(key: PRNGKeyArray | None = None, *, steps: int = EPISODE_LENGTH) -> Scenario:
    """The start and the set points of pcgym's benchmark."""
    del key
    return _scenario(jnp.array(START), jnp.array(SET_POINTS), steps)


def drawn(key: PRNGKeyArray, *, steps: int = EPISODE_LENGTH) -> Scenario:
    """A start, and two pairs of set points, each for half of the episode."""
    start_key, target_key = jax.random.split(key)
    start = jax.random.uniform(
        start_key, (4,), minval=0.05, maxval=jnp.array([HIGHEST, HIGHEST, 0.5, 0.5])
    )
    targets = jax.random.uniform(
        target_key, (2, 2), minval=jnp.array([0.1, 0.1]), maxval=jnp.array([0.5, 0.3])
    )
    return _scenario(start, targets, steps)


def _scenario(start: Float[Array, " 4"], targets: Float[Array, "2 2"], steps: int) -> Scenario:
    set_points = pieces(targets, steps)
    return Scenario(start, set_points, jnp.zeros((steps + 1, 0)))


make = maker(PLANT, benchmark, drawn, EPISODE_LENGTH)
