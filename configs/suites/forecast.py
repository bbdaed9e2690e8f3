"""Which safety critic is the best forecast? Off line, on stored rollouts of fixed policies.

    smpo-jax train --config PointGoal1/smpo --out RUN
    python configs/suites/forecast.py RUN --checkpoints 32 160 313

Of each policy layouts are recorded without an end of the episode, some to learn from and others to
be scored on. Each critic learns from the former as SMPO's does, in windows of a rollout's length,
but for what its `Variant` says. What it then predicts of the others is held against what followed
there: the discounted cost (0.99), and the cost of the next 100 and the next 1000 steps. So is what
the run's own critic predicts, which has learnt while the policy did. `forecast.csv` has a row for
each policy and critic.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float
from pixels import add

import smpo_envs
import smpo_jax as sx
from smpo_envs import compilation
from smpo_jax.core import moments, returns
from smpo_jax.experiment.results.policy import TrainedPolicy

TASK, LEARNT_FROM, SCORED_ON, WINDOW = "PointGoal1", 2048, 512, 250
FIRST, STEPS, BEYOND = 100, 1000, 1000  # steps not looked at, looked at, and after these
MINIBATCHES, BATCH = 25, 1024
LEARNING_RATE = 1e-3  # decays to 0: there are fewer steps than in training
BINS = 10


class Variant(NamedTuple):
    """A critic, and how it learns; what SMPO's does unless said otherwise.

    Attributes:
        name: in the table.
        discount, trace, regularisation: as in `CriticSettings`.
        hidden: units of its layers.
        layer_norm: before each activation.
        bins: of a distribution over the cost to come, learnt by cross entropy; 0: a mean.
        history: of how many steps ago it sees observations, too.
        layouts: that it learns from.
        steps: in each of them.
        rounds: times that targets are computed, of 25 gradient steps each.
    """

    name: str
    discount: float = 0.99
    trace: float = 0.95
    regularisation: float = 0.0
    hidden: tuple[int, ...] = (64, 64)
    layer_norm: bool = False
    bins: int = 0
    history: tuple[int, ...] = ()
    layouts: int = 128
    steps: int = 1000
    rounds: int = 200


VARIANTS = (
    Variant("as in smpo"),
    Variant("one step", trace=0.0),
    Variant("one step, penalty 0.1", trace=0.0, regularisation=0.1),
    Variant("Monte Carlo", trace=1.0),
    Variant("discount 0.95", discount=0.95),
    Variant("discount 0.997", discount=0.997),
    Variant("discount 0.999", discount=0.999),
    Variant("256 x 256", hidden=(256, 256)),
    Variant("layer norm", layer_norm=True),
    Variant("51 bins", bins=51),
    Variant("sees 5 and 25 steps back", history=(5, 25)),
    Variant("512 layouts, 250 steps of each", layouts=512, steps=250),
    Variant("512 layouts", layouts=512),
    Variant("512 layouts, 15 000 gradient steps", layouts=512, rounds=600),
    Variant("2048 layouts, 500 steps of each", layouts=2048, steps=500),
    Variant("the same, 15 000 gradient steps", layouts=2048, steps=500, rounds=600),
    Variant("the same, discount 0.997", layouts=2048, steps=500, rounds=600, discount=0.997),
)
OWN = "the run's own"


class Record(NamedTuple):
    """Steps of a policy, observations normalised.

    `mode` is its action without noise, `predicted` what the run's own critic said of the step.
    """

    obs: Float[Array, "T N O"]
    action: Float[Array, "T N A"]
    mode: Float[Array, "T N A"]
    cost: Float[Array, "T N"]
    predicted: Float[Array, "T N"]


class Score(NamedTuple):
    """How good a forecast is, on layouts that it has not learnt from.

    Attributes:
        policy: the iteration it is of.
        seed: of the layouts that are learnt from, and of the learning.
        learnt: the next one, on the layouts that it has learnt from; nan of the run's own.
        correlation: of a step's prediction with the discounted cost that followed (0.99).
        next_100, next_1000: with the cost of so many steps, undiscounted.
        rank: Spearman's, with the discounted cost.
        ratio: mean prediction over the mean of what it predicts, its own discounted cost.
        error: mean over ten bins of |predicted - followed|, as a share of the mean.
        scale: cost of 1000 steps for one of the mean prediction; 1 / (1000 (1 - discount)) of it
            is what the discount alone would say.
        seconds: of learning.
    """

    policy: int
    seed: int
    critic: str
    learnt: float
    correlation: float
    next_100: float
    next_1000: float
    rank: float
    ratio: float
    error: float
    scale: float
    seconds: float


def record(policy: TrainedPolicy, layouts: int, key: jax.Array) -> Record:
    """Plays the policy with its noise, each robot in one layout all the time."""
    task = smpo_envs.make(TASK, episode_length=10**6)
    env = smpo_envs.VectorEnv(task, layouts, stagger=False)
    learner = policy.learner
    act = policy.algorithm.policy(learner)
    critic = policy.algorithm.cost_critic
    clip = policy.config.hyperparameters.observation_clip

    def step(state: Any, key: jax.Array) -> Any:
        action, _, dist = act(state.obs, key)
        obs = moments.normalise(learner.obs_moments, state.obs, clip=clip)
        predicted = critic.predict(learner, state.obs, action)
        after, seen = env.step(state, action)
        return after, Record(obs, action, dist.mode(), seen.cost, predicted)

    @partial(jax.jit, compiler_options=compilation.options())
    def play(key: jax.Array) -> Record:
        begin, act_key = jax.random.split(key)
        keys = jax.random.split(act_key, FIRST + STEPS + BEYOND)
        return jax.lax.scan(step, env.reset(begin), keys)[1]

    return play(key)


class Critic(nn.Module):
    """A multilayer perceptron over an observation and an action."""

    variant: Variant

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Cost to come before `head`, or the logits of its bins."""
        for size in self.variant.hidden:
            x = nn.Dense(size, kernel_init=nn.initializers.orthogonal(2.0**0.5))(x)
            x = nn.relu(nn.LayerNorm()(x) if self.variant.layer_norm else x)
        return nn.Dense(self.variant.bins or 1)(x)


class Data(NamedTuple):
    """What a critic learns from, or is scored on."""

    x: Float[Array, "T N I"]  # at a step, with the action that was taken
    next_x: Float[Array, "T N I"]  # at the next one, with the mode
    cost: Float[Array, "T N"]


def data(given: Record, variant: Variant, layouts: int, steps: int) -> Data:
    """So many steps in so many layouts, from the first step that is looked at on."""

    def seen(shift: int, action: jax.Array) -> jax.Array:
        begin = FIRST + shift
        past = [given.obs[begin - back : begin - back + steps] for back in (0, *variant.history)]
        return jnp.concatenate([*past, action[begin : begin + steps]], axis=-1)[:, :layouts]

    cost = given.cost[FIRST : FIRST + steps, :layouts]
    return Data(seen(0, given.action), seen(1, given.mode), cost)


def head(variant: Variant, highest: jax.Array, out: jax.Array) -> jax.Array:
    """The cost to come, from a network's output."""
    if not variant.bins:
        return nn.softplus(out[..., 0])
    return jax.nn.softmax(out) @ jnp.linspace(0.0, highest, variant.bins)


def loss(variant: Variant, highest: jax.Array, out: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. 3; of bins the cross entropy with the target's share of the two nearest ones."""
    if not variant.bins:
        q = head(variant, highest, out)
        return jnp.mean((q - target) ** 2) + variant.regularisation * jnp.mean(q**2)
    at = jnp.clip(target / highest, 0.0, 1.0) * (variant.bins - 1)
    shares = jnp.maximum(1.0 - jnp.abs(at[..., None] - jnp.arange(variant.bins)), 0.0)
    return -jnp.mean(jnp.sum(shares * jax.nn.log_softmax(out), axis=-1))


@partial(jax.jit, static_argnums=0)
def learn(variant: Variant, given: Data, key: jax.Array) -> tuple[Any, jax.Array]:
    """Parameters, and the highest cost to come that bins can say."""
    network = Critic(variant)
    rate = optax.cosine_decay_schedule(LEARNING_RATE, variant.rounds * MINIBATCHES)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    steps, layouts = given.cost.shape
    nothing = jnp.zeros_like(given.cost)
    cut = jnp.broadcast_to((jnp.arange(steps) % WINDOW == WINDOW - 1)[:, None], given.cost.shape)
    # Ten times the mean is beyond what follows of all but very few steps.
    highest = 10.0 * jnp.mean(given.cost) / (1.0 - variant.discount)

    def one_round(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        next_value = head(variant, highest, network.apply(params, given.next_x))
        target = returns.lambda_return(
            given.cost,
            next_value,
            nothing,
            cut.astype(nothing.dtype),
            discount=variant.discount,
            lambda_=variant.trace,
        )

        def step(carry: Any, chosen: jax.Array) -> Any:
            params, state = carry
            x, y = (v.reshape(steps * layouts, *v.shape[2:])[chosen] for v in (given.x, target))
            gradient = jax.grad(lambda p: loss(variant, highest, network.apply(p, x), y))(params)
            change, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, change), state), None

        chosen = jax.random.randint(key, (MINIBATCHES, BATCH), 0, steps * layouts)
        return jax.lax.scan(step, (params, state), chosen)[0], None

    start, key = jax.random.split(key)
    params = network.init(start, given.x[0, :1])
    carry = (params, optimiser.init(params))
    (params, _), _ = jax.lax.scan(one_round, carry, jax.random.split(key, variant.rounds))
    return params, highest


@partial(jax.jit, static_argnums=0)
def predictions(variant: Variant, params: Any, highest: jax.Array, x: jax.Array) -> jax.Array:
    """Of one critic."""
    return head(variant, highest, Critic(variant).apply(params, x))


def followed(cost: Float[np.ndarray, "T N"], discount: float) -> Float[np.ndarray, "T N"]:
    """The discounted cost from each step that is looked at to the last one recorded."""
    total, sums = np.zeros(cost.shape[1]), []
    for now in cost[::-1]:
        total = now + discount * total
        sums.append(total)
    return np.array(sums[::-1])[FIRST : FIRST + STEPS]


def ahead(cost: Float[np.ndarray, "T N"], number: int) -> Float[np.ndarray, "T N"]:
    """The cost of so many steps from each that is looked at."""
    sums = np.concatenate([np.zeros((1, cost.shape[1])), np.cumsum(cost, axis=0)])
    steps = np.arange(FIRST, FIRST + STEPS)
    return sums[steps + number] - sums[steps]


def ranks(x: np.ndarray) -> np.ndarray:
    """Places in the order of size, ties by their mean."""
    _, place, number = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(number) - (number - 1) / 2)[place]


def score(
    predicted: Float[np.ndarray, "T N"], cost: Float[np.ndarray, "T N"], discount: float
) -> dict[str, float]:
    """What is predicted of the steps that are looked at, against the costs that were recorded."""
    predicted = predicted.ravel()
    truth, own = followed(cost, 0.99).ravel(), followed(cost, discount).ravel()
    order = np.array_split(np.argsort(predicted), BINS)
    gaps = [abs(predicted[i].mean() - own[i].mean()) for i in order]

    def with_(other: np.ndarray) -> float:
        return float(np.corrcoef(predicted, other.ravel())[0, 1])

    return {
        "correlation": with_(truth),
        "next_100": with_(ahead(cost, 100)),
        "next_1000": with_(ahead(cost, 1000)),
        "rank": float(np.corrcoef(ranks(predicted), ranks(truth))[0, 1]),
        "ratio": float(predicted.mean() / own.mean()),
        "error": float(np.mean(gaps) / own.mean()),
        "scale": float(ahead(cost, 1000).mean() / predicted.mean()),
    }


def score_learnt(
    learning: Record, other: Record, variant: Variant, key: jax.Array
) -> dict[str, float]:
    """Learns from some layouts, predicts others, and compares."""
    given = data(learning, variant, variant.layouts, variant.steps)
    began = time.perf_counter()
    params, highest = jax.block_until_ready(learn(variant, given, key))
    seconds = time.perf_counter() - began

    def predict(x: jax.Array) -> np.ndarray:
        return np.asarray(predictions(variant, params, highest, x))

    truth = followed(np.asarray(learning.cost), 0.99)[: variant.steps, : variant.layouts]
    learnt = float(np.corrcoef(predict(given.x).ravel(), truth.ravel())[0, 1])
    scored_on = data(other, variant, SCORED_ON, STEPS)
    found = score(predict(scored_on.x), np.asarray(other.cost), variant.discount)
    return {"learnt": learnt, "seconds": seconds, **found}


def say(out: Path, row: Score) -> None:
    """To a file and to the terminal."""
    add(out, Score._fields, [row])
    print(row, flush=True)


def main(run: Path, checkpoints: Sequence[int], seeds: int, out: Path) -> None:
    """Scores all critics on all policies."""
    for checkpoint in checkpoints or ("newest",):
        policy = sx.load_policy(run, checkpoint)
        key = jax.random.key(policy.iteration)
        other = record(policy, SCORED_ON, key)
        cost = 1000 * float(other.cost.mean())
        print(f"iteration {policy.iteration}: {cost:.1f} in 1000 steps", flush=True)

        shown = slice(FIRST, FIRST + STEPS)
        discount = policy.algorithm.cost_critic.discount
        own = score(np.asarray(other.predicted)[shown], np.asarray(other.cost), discount)
        say(out, Score(policy.iteration, 0, OWN, learnt=np.nan, seconds=np.nan, **own))
        for seed in range(seeds):
            layouts_key, learn_key = jax.random.split(jax.random.fold_in(key, seed))
            learning = record(policy, LEARNT_FROM, layouts_key)
            for variant in VARIANTS:
                found = score_learnt(learning, other, variant, learn_key)
                say(out, Score(policy.iteration, seed, variant.name, **found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=())
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("forecast.csv"))
    options = parser.parse_args()
    main(options.run, options.checkpoints, options.seeds, options.out)
