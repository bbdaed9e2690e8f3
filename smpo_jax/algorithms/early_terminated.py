"""Early termination (Sun et al. 2021): an episode ends when its cost has reached the limit.

Spending the budget becomes the worst state there is, one without a future, so that any method for
unconstrained problems learns to stay clear of it where rewards to come are positive.

Deviation: an episode ends when its cost *reaches* the limit, so that no episode costs more than the
limit where steps cost 0 or 1; OmniSafe's code waits for the limit to be exceeded, its published
costs of 25.00 ± 0.00 are those of the rule here. The reward of the last step counts.
"""

from smpo_jax.algorithms import base
from smpo_jax.augmentation import Augmentation


def augmentation(settings: base.ActorCriticSettings, cost_limit: float) -> Augmentation:
    """The account is the episode's cost so far; it is not shown."""
    del settings
    return Augmentation(
        start=(0.0,),
        step=lambda z, cost: z + cost[..., None],
        size=0,
        observe=lambda z: z[..., :0],
        # A limit of 0 is not reached by costing nothing.
        is_over=lambda z: (z[..., 0] >= cost_limit) & (z[..., 0] > 0.0),
    )
