"""Pure functions from arrays to arrays that methods are made of."""

from smpo_jax.core import (
    calibration,
    distributions,
    episodes,
    moments,
    multipliers,
    optimise,
    returns,
    surrogate,
    trust_region,
)

__all__ = [
    "calibration",
    "distributions",
    "episodes",
    "moments",
    "multipliers",
    "optimise",
    "returns",
    "surrogate",
    "trust_region",
]
