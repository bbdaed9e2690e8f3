"""Projection-based constrained policy optimisation (Yang, Rosca, Narasimhan & Ramadge 2020).

TRPO's step for the reward, then the shortest way from there to where the linear model of the
constraint holds, short being said of the divergence or of the parameters (algorithm 1).

Deviation: what leads beyond the trust region is cut at its border, by the quadratic model of the
divergence, and then shortened as CPO's steps are. From far beyond the limit the projection is a
hundred times longer than the trust region is wide: OmniSafe shortens it in up to 200 tries, which
took longer than all the rest of the update.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from smpo_jax.algorithms import base, cpo
from smpo_jax.core import constraints, trust_region
from smpo_jax.core.constraints import each
from smpo_jax.core.trust_region import Vector
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Metrics, PerCost, Spec

# What is short: the direction of the projection is L⁻¹b, for L = F or L = I; of each constraint.
PROJECTION = {"kl": lambda known: known.cost_natural, "l2": lambda known: known.cost_gradient}


def project_on_two(step: Vector, b: PerCost, direction: PerCost, violation: PerCost) -> Vector:
    """The nearest step that satisfies two constraints; see `trust_region.project`."""
    gradients, directions, c = (
        jnp.stack(constraints.values(quantity)) for quantity in (b, direction, violation)
    )
    prices = trust_region.nearest_prices(gradients @ directions.T, c + gradients @ step)
    return step - prices @ directions


PROJECT = {1: trust_region.project, 2: project_on_two}  # by the number of constraints


@dataclass(frozen=True, kw_only=True)
class PCPO(cpo.CPO):
    """CPO's, and the metric of the projection."""

    projection: Literal["kl", "l2"] = "kl"  # nearest in divergence, or in distance of parameters

    def __post_init__(self):
        base.choose("projection", self.projection, PROJECTION)
        super().__post_init__()


def make(spec: Spec, settings: PCPO, networks: Networks = DEFAULT) -> Algorithm:
    """PCPO for a problem of one constraint or two."""
    direction_of = PROJECTION[settings.projection]
    project = PROJECT[constraints.count(spec.cost_limit)]

    def rule(known: cpo.Directions) -> tuple[Vector, Metrics]:
        length = trust_region.natural_length(
            known.gradient @ known.natural, target_kl=known.target_kl
        )
        first = length * known.natural
        is_slack = constraints.all_of(
            each(lambda c, b: c + b @ first <= 0.0, known.violation, known.cost_gradient)
        )
        projected = project(first, known.cost_gradient, direction_of(known), known.violation)
        short = trust_region.within(projected, known.fisher, target_kl=known.target_kl)
        step = jnp.where(is_slack, first, short)
        return step, {"constraint/slack": jnp.asarray(is_slack, step.dtype)}

    return cpo.constrained_trpo(spec, settings, rule, networks)
