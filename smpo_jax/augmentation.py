"""What a method adds to its environment: a running account of cost that is seen, or ends episodes.

An `Augmentation` is a value of pure functions on the account z, a small vector per environment. One
wrapper puts it around a native environment (`augment`), one around environments outside JAX
(`training.host.augment_host`). Rewards and costs pass through as they are: what a method makes of
the account is a matter of its own `update`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_jax.types import Key, Scalar, VectorEnv

Account = Float[Array, "*batch K"]


class Augmentation(NamedTuple):
    """An account of cost; all functions take any leading axes.

    Attributes:
        start: z at the start of an episode, `[K]`.
        step: z after a step of that cost.
        size: `E`, the entries that `observe` adds to the observation.
        observe: what is shown of z, `[*batch, E]`.
        is_over: whether the episode ends, as one that has no future.
        limits: cost limits of which each episode of training is under one; () for the run's alone.
        draw: z at the start of an episode of training, where not all start alike.
    """

    start: tuple[float, ...]
    step: Callable[[Account, Float[Array, "*batch"]], Account]
    size: int
    observe: Callable[[Account], Float[Array, "*batch E"]]
    is_over: Callable[[Account], Bool[Array, "*batch"]]
    limits: tuple[Scalar, ...] = ()
    draw: Callable[[Key], Account] | None = None

    def apart_from_training(self) -> "Augmentation":
        """The same where all episodes start at `start`."""
        return self if self.draw is None else self._replace(draw=None)


NONE = Augmentation(
    start=(),
    step=lambda z, cost: z,
    size=0,
    observe=lambda z: z,
    is_over=lambda z: jnp.zeros(z.shape[:-1], bool),
)


class Accounted(NamedTuple):
    """The `pipeline_state` of an augmented environment."""

    inner: Any  # the environment's own
    account: Float[Array, " K"]


class SingleEnv(Protocol):
    """One environment with brax's contract and a cost; see `smpo_envs.safe_env.SafeEnv`."""

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Length of an action."""
        ...

    @property
    def episode_length(self) -> int:
        """Steps after which an episode is cut."""
        ...

    @property
    def reset(self) -> Callable[[Key], Any]:
        """The first state of an episode."""
        ...

    @property
    def step(self) -> Callable[[Any, Float[Array, " A"]], Any]:
        """The state after an action."""
        ...


@dataclass(frozen=True)
class AugmentedEnv:
    """An environment with an account of its costs; itself an environment of the same contract."""

    env: SingleEnv
    augmentation: Augmentation

    @property
    def observation_size(self) -> int:
        """Length of the environment's observation and what is shown of the account."""
        return self.env.observation_size + self.augmentation.size

    @property
    def action_size(self) -> int:
        """The environment's."""
        return self.env.action_size

    @property
    def episode_length(self) -> int:
        """The environment's."""
        return self.env.episode_length

    @property
    def discrete(self) -> bool:
        """The environment's."""
        return getattr(self.env, "discrete", False)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The environment's, of which those that are added are none."""
        return getattr(self.env, "observation_names", ())

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The environment's."""
        return getattr(self.env, "observation_shape", ())

    def reset(self, key: Key) -> Any:
        """The first state of an episode.

        Raises:
            ValueError: the environment has several costs, and an account is of one.
        """
        start = jnp.asarray(self.augmentation.start)
        if self.augmentation.draw is not None:
            key, own_key = jax.random.split(key)
            start = self.augmentation.draw(own_key)
        state = self.env.reset(key)
        costs = jnp.size(state.info["cost"])
        if costs != 1:
            raise ValueError(
                f"the method keeps an account of one cost, and the environment has {costs}"
            )
        return self._show(state, jnp.asarray(start, state.obs.dtype))

    def step(self, state: Any, action: Float[Array, " A"]) -> Any:
        """The state after an action; `done` also where the account says so."""
        inner, account = state.pipeline_state
        own = state.obs[: self.env.observation_size]
        state = self.env.step(state.replace(pipeline_state=inner, obs=own), action)
        account = self.augmentation.step(account, state.info["cost"])
        is_over = jnp.asarray(self.augmentation.is_over(account), state.done.dtype)
        return self._show(state.replace(done=jnp.maximum(state.done, is_over)), account)

    def _show(self, state: Any, account: Float[Array, " K"]) -> Any:
        shown = jnp.asarray(self.augmentation.observe(account), state.obs.dtype)
        return state.replace(
            pipeline_state=Accounted(state.pipeline_state, account),
            obs=jnp.concatenate([state.obs, shown], axis=-1),
        )


def require_account(size: int, env: VectorEnv) -> None:
    """Raises a ValueError unless environments keep an account of `size` entries, or it is 0."""
    if size == 0:
        return
    state = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Accounted))
    kept = [node.account.shape[-1] for node in nodes if isinstance(node, Accounted)]
    if size not in kept:
        raise ValueError(missing_account(size))


def missing_account(size: int) -> str:
    """What to say where environments lack a method's account."""
    return (
        f"the method needs environments that keep its account of cost ({size} per environment), "
        "and these do not: make them with sx.augment(env, NAME, cost_limit=LIMIT), NAME being the "
        "method's, before they go into VectorEnv; make_spec then has their size"
    )


def augment(env: SingleEnv, augmentation: Augmentation) -> SingleEnv:
    """The environment with the account; the environment itself if there is none to keep.

    Raises:
        ValueError: of the account something is shown, and observations are pictures.
    """
    if augmentation is NONE:
        return env
    require_vectors(env, augmentation)
    return AugmentedEnv(env, augmentation)


def require_vectors(env: Any, augmentation: Augmentation) -> None:
    """Raises a ValueError if observations are pictures that would have to show the account."""
    shape = getattr(env, "observation_shape", ())
    if shape and augmentation.size:
        raise ValueError(
            f"the method shows its account of cost at the end of an observation, which has to be a "
            f"vector: these are pictures, {list(shape)}"
        )
