"""The records that flow between the parts, and the protocols at the seams.

Axes, everywhere: `T` steps of a rollout, `N` environments, `B = T * N` samples, `O` observation,
`A` action. Flags in rollouts are float 0/1, because they multiply. A discrete action, one of `A`
choices, is a one-hot float vector `[A]`: whatever learns from actions sees vectors of one kind.

What every constraint has of its own, such as its cost, is `PerCost`: the plain value where there is
one constraint, a dictionary by the cost's name where there are several (see `core.constraints`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import jax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Key = PRNGKeyArray
Params = Any  # a pytree of network parameters
Scalar = float | int | Float[Array, ""]  # a setting: a number, or traced to try several at once
PerCost = Any  # one of what is said for each constraint: itself, or {name: it} for several
Metrics = dict[str, jax.Array]  # flat, "group/name" -> scalar


@runtime_checkable
class Distribution(Protocol):
    """A policy's distribution over actions: a pytree of arrays, with one entry for each state."""

    def sample(self, key: Key) -> Float[Array, "*batch A"]:
        """A draw for each state."""
        ...

    def mode(self) -> Float[Array, "*batch A"]:
        """The action without noise."""
        ...

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        """Log-density of an action, summed over its components; log-probability of a choice."""
        ...

    def entropy(self) -> Float[Array, "*batch"]:
        """In nats; it can be negative."""
        ...

    def kl(self, other: Any) -> Float[Array, "*batch"]:
        """KL(self || other) in nats, `other` being of the same kind; exactly 0 for equals."""
        ...

    def std(self) -> Float[Array, "*batch A"]:
        """Standard deviations of the noise; what a person looks at."""
        ...


class Reparameterised(Distribution, Protocol):
    """A distribution whose actions are a smooth function of its parameters and of free noise."""

    def noise(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """The noise that gave this action."""
        ...

    def with_noise(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """The action that this noise gives."""
        ...


class Transition(NamedTuple):
    """One step of `N` environments, stacked over `T` steps in a rollout."""

    obs: Float[Array, "*T N O"]
    action: Float[Array, "*T N A"]  # as sampled, before the environment clips it
    log_prob: Float[Array, "*T N"]
    dist: Distribution  # the behaviour policy, for exact KL divergences
    reward: Float[Array, "*T N"]
    cost: PerCost  # of Float[Array, "*T N"], >= 0, undiscounted
    terminated: Float[Array, "*T N"]
    truncated: Float[Array, "*T N"]
    next_obs: Float[Array, "*T N O"]  # the true successor, never the observation after a reset


class EpisodeStats(NamedTuple):
    """Means over the episodes that finished in a rollout; NaN where `count` is 0."""

    return_: Float[Array, ""]
    cost: PerCost  # of Float[Array, ""]: undiscounted episode cost, the J_c of the constraint
    length: Float[Array, ""]
    over_limit: Float[Array, ""]  # share of episodes that exceed a limit
    count: Float[Array, ""]


class Rollout(NamedTuple):
    """What an update learns from."""

    transition: Transition  # leaves [T, N, ...]
    cost_so_far: PerCost  # of Float[Array, "T N"], C_t: the episode's cost before step t
    elapsed: Float[Array, "T N"]  # steps of the episode before step t
    episodes: EpisodeStats


class LearnerState(struct.PyTreeNode):
    """Everything an algorithm carries from one update to the next."""

    params: Params
    opt_state: Any
    obs_moments: Any  # the normaliser's state: running mean and variance of observations
    aux: Any  # the algorithm's own NamedTuple (multipliers, thresholds); () if it has none
    iteration: Int[Array, ""]


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on exactly where it stopped."""

    learner: LearnerState
    env_state: Any
    tracker: Any  # running return, cost and length of the episodes under way
    key: Key


class Spec(NamedTuple):
    """What an algorithm must know of the problem it is built for.

    `make_spec` makes it of an environment; of several limits it makes a dictionary.
    """

    observation_size: int
    action_size: int
    num_envs: int
    rollout_length: int
    episode_length: int
    total_iterations: int  # for learning-rate decay
    cost_limit: PerCost = 25.0  # of a Scalar, d: the bound on the expected episode cost
    discrete: bool = False  # actions are one of `action_size` choices, one-hot
    # Of a picture, whose entries observations are one after the other; () for plain vectors.
    observation_shape: tuple[int, ...] = ()
    # Equal parts of the environments whose samples are shuffled each by themselves, so that as many
    # devices, or fewer, make updates together (see `training.devices`).
    shards: int = 1


Policy = Callable[
    [Float[Array, "N O"], Key],
    tuple[Float[Array, "N A"], Float[Array, " N"], Distribution],
]


class CostCritic(NamedTuple):
    """What a method expects of the costs to come, for others to hold against what came.

    Attributes:
        discount: of the cost-to-go that is predicted.
        predict: `(learner, obs, action) -> [*batch]`, discounted cost from this step on; of each
            constraint.
            Observations are as the environment gives them. Whatever shrinks the method's own critic
            by design is undone, so that all methods' are in the same units.
    """

    discount: Scalar
    predict: Callable[
        [LearnerState, Float[Array, "*batch O"], Float[Array, "*batch A"]],
        PerCost,  # of Float[Array, "*batch"]
    ]


class Algorithm(NamedTuple):
    """A method as a value: three pure functions, and how to act without noise.

    Attributes:
        init: the learner state before the first update.
        policy: the acting policy of a learner state, `(obs, key) -> action, log_prob, dist`.
            Its deterministic action is `dist.mode()`.
        update: one iteration of learning from a rollout.
        cost_critic: what it expects of costs; None if it has no such critic.
        account_size: entries of the account of cost that its environments must keep (see
            `augmentation`); 0 for none.
        is_counted: `obs [*batch, O] -> [*batch]`, whether episodes with such observations are
            those that are reported; None: all are.
    """

    init: Callable[[Key], LearnerState]
    policy: Callable[[LearnerState], Policy]
    update: Callable[[LearnerState, Rollout, Key], tuple[LearnerState, Metrics]]
    cost_critic: CostCritic | None = None
    account_size: int = 0
    is_counted: Callable[[Float[Array, "*batch O"]], Bool[Array, "*batch"]] | None = None


A_co = TypeVar("A_co", covariant=True)  # jax.Array, or np.ndarray from outside JAX


@runtime_checkable
class StepLike(Protocol[A_co]):
    """What `N` environments report of one step, a NamedTuple (see `smpo_envs.Step`).

    Flags are float 0/1.
    """

    @property
    def reward(self) -> A_co:
        """Rewards of the step, `[N]`."""
        ...

    @property
    def cost(self) -> PerCost:
        """Costs of the step, `[N]`, >= 0; of each constraint, by name, where there are several."""
        ...

    @property
    def terminated(self) -> A_co:
        """1 where the episode ended in a state of no future, `[N]`."""
        ...

    @property
    def truncated(self) -> A_co:
        """1 where the episode was cut by the time limit, `[N]`."""
        ...

    @property
    def next_obs(self) -> A_co:
        """The true successor, `[N, O]`, never the observation after a reset."""
        ...

    def _replace(self, *, terminated: Any = ..., truncated: Any = ..., next_obs: Any = ...) -> Self:
        """The same with some fields changed, as NamedTuples have it."""
        ...


@runtime_checkable
class Sized(Protocol):
    """What a `Spec` says of a batch of environments, wherever they are stepped.

    Environments of discrete actions also have `discrete`, which is True; those of pictures
    `observation_shape`. What lacks them has continuous actions and plain vectors. Those with
    several costs have `cost_names`, what each is called, in order.
    """

    num_envs: int
    observation_size: int
    action_size: int
    episode_length: int


@runtime_checkable
class VectorEnv(Protocol):
    """`N` environments of pure functions that reset themselves.

    A state has two attributes: `obs`, `[N, O]`, the observation to act on next, which after the end
    of an episode is the first of a fresh one; and `steps`, `[N]`, those taken in the episode. To be
    shared by several devices, all leaves of a state have a leading axis `N`, and `step` takes any
    number of environments. See `Sized` for what they may have besides.
    """

    num_envs: int
    observation_size: int
    action_size: int
    episode_length: int

    def reset(self, key: Key) -> Any:
        """The first state of all environments."""
        ...

    def step(self, state: Any, action: Float[Array, "N A"]) -> tuple[Any, StepLike[jax.Array]]:
        """Acts, and starts a new episode wherever one has ended."""
        ...
