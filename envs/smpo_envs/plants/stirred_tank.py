"""A stirred tank with a cooling jacket, in which A becomes B and heats the tank up.

Equations and numbers: Seborg, Edgar, Mellichamp, Doyle, Process Dynamics and Control, example 2.5;
limits, ranges and set points: pcgym 0.1.8 (see README.md). With the jacket at 304 K or above for
long the reaction runs away, to 480 K within seconds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.plants.plant import Limit, Plant, Quantity, Scenario, maker, pieces

EPISODE_LENGTH = 59
STEP = 26 / 60  # min
COOLEST, HOTTEST = 321.0, 327.0  # limits of the tank's temperature, K
FEED = 350.0  # temperature of what flows in, K
START = (0.8, 325.0)
SET_POINTS = (0.85, 0.9, 0.87)  # of pcgym's benchmark, a third of an episode each
FEED_OFF = 5.0  # by which the feed is off in the middle of an episode, at most, K


class Parameters(NamedTuple):
    """Of the tank and of what is in it; defaults as published."""

    flow: float = 100.0  # q, L/min
    volume: float = 100.0  # V, L
    density: float = 1000.0  # rho, g/L
    heat_capacity: float = 0.239  # C, J/(g K)
    reaction_heat: float = 5e4  # -(Delta H), J/mol
    activation: float = 8750.0  # E/R, K
    rate: float = 7.2e10  # k0, 1/min
    heat_transfer: float = 5e4  # UA, J/(min K)


def rates(
    p: Parameters,
    state: Float[Array, " 2"],
    inputs: Float[Array, " 1"],
    disturbances: Float[Array, " 2"],
) -> Float[Array, " 2"]:
    """Of the concentration of A (mol/L) and of the temperature (K), per minute.

    Args:
        p: parameters.
        state: concentration, temperature.
        inputs: temperature of the jacket, K.
        disturbances: temperature (K) and concentration (mol/L) of what flows in.
    """
    concentration, temperature = state
    (jacket,), (feed_temperature, feed) = inputs, disturbances
    reaction = p.rate * jnp.exp(-p.activation / temperature) * concentration
    heat = p.density * p.heat_capacity
    exchange = p.flow / p.volume
    return jnp.stack(
        [
            exchange * (feed - concentration) - reaction,
            exchange * (feed_temperature - temperature)
            + p.reaction_heat / heat * reaction
            + p.heat_transfer / (heat * p.volume) * (jacket - temperature),
        ]
    )


PLANT = Plant(
    rates=rates,
    parameters=Parameters(),
    uncertain=("flow", "reaction_heat", "rate", "heat_transfer"),
    states=(
        Quantity("concentration", "mol/L", 0.7, 1.0),
        Quantity("temperature", "K", 300.0, 350.0),
    ),
    inputs=(Quantity("jacket temperature", "K", 290.0, 310.0),),
    disturbances=(
        Quantity("feed temperature", "K", 320.0, 380.0),
        Quantity("feed concentration", "mol/L", 0.9, 1.1),
    ),
    tracked=(0,),
    targets=(Quantity("concentration wanted", "mol/L", 0.8, 0.9),),
    weights=(1e3,),
    limits=(Limit(1, COOLEST, HOTTEST, 1.0),),
    step=STEP,
)


def benchmark(key: PRNGKeyArray | None = None, *, steps: int = EPISODE_LENGTH) -> Scenario:
    """The set points of pcgym's benchmark, and a feed that does not change."""
    del key
    return _scenario(jnp.array(START), jnp.array(SET_POINTS), jnp.array(FEED), steps)


def drawn(key: PRNGKeyArray, *, steps: int = EPISODE_LENGTH) -> Scenario:
    """Three set points, each for a third; a start; a feed that is off in the middle half."""
    start_key, target_key, feed_key = jax.random.split(key, 3)
    start = jax.random.uniform(
        start_key, (2,), minval=jnp.array([0.8, 322.0]), maxval=jnp.array([0.9, 326.0])
    )
    targets = jax.random.uniform(target_key, (3,), minval=0.85, maxval=0.9)
    feed = FEED + FEED_OFF * jax.random.uniform(feed_key, minval=-1.0)
    return _scenario(start, targets, feed, steps)


def _scenario(
    start: Float[Array, " 2"], targets: Float[Array, " 3"], feed: Float[Array, ""], steps: int
) -> Scenario:
    usual = jnp.full_like(feed, FEED)
    temperatures = pieces(jnp.stack([usual, feed, feed, usual]), steps)
    disturbances = jnp.stack([temperatures, jnp.ones_like(temperatures)], axis=1)
    return Scenario(start, pieces(targets, steps)[:, None], disturbances)


make = maker(PLANT, benchmark, drawn, EPISODE_LENGTH)
