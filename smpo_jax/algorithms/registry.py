"""The methods by name. Importing this loads no jax; `make` loads the one method it builds."""

import dataclasses
import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from smpo_jax.names import suggest

if TYPE_CHECKING:
    from smpo_jax.augmentation import Augmentation, SingleEnv
    from smpo_jax.networks import Networks
    from smpo_jax.types import Algorithm, PerCost, Scalar, Spec


class Entry(NamedTuple):
    """A method: where its parts are, each as "module:name", and what people are told of it.

    Attributes:
        settings: the frozen dataclass of its hyperparameters, whose defaults are the preset.
        make: builds it, `(spec, settings, networks) -> Algorithm`.
        improver: how its policy moves (see `improvers`): passes, or natural step.
        paper: its source.
        year: of the paper.
        summary: one line.
        augmentation: makes, of settings and cost limit, what the method adds to its environment;
            empty for nothing.
        most_constraints: how many limits it can keep at once; None for any number.
    """

    settings: str
    make: str
    improver: str
    paper: str
    year: int
    summary: str
    augmentation: str = ""
    most_constraints: int | None = None


_SMPO = "Zhang & Guo, Safety Modulation: Cost-Modulated Rewards, arXiv 2504.03040"
_LAGRANGIAN = "Ray, Achiam & Amodei, Benchmarking Safe Exploration in Deep RL, OpenAI"
_PID = "Stooke et al., Responsive Safety by PID Lagrangian Methods, arXiv 2007.03964"
_SAUTE = "Sootla et al., Sauté RL: Almost Surely Safe Reinforcement Learning, arXiv 2202.06558"
_SIMMER = (
    "Sootla et al., Enhancing Safe Exploration Using Safety State Augmentation, arXiv 2206.02675"
)
_EARLY_TERMINATED = "Sun et al., Safe Exploration by Solving Early Terminated MDP, arXiv 2107.04200"

ALGORITHMS: dict[str, Entry] = {
    "smpo": Entry(
        settings="smpo_jax.algorithms.smpo:SMPO",
        make="smpo_jax.algorithms.smpo:make",
        improver="natural step",
        paper=_SMPO,
        year=2025,
        summary="cost-modulated rewards, steered to the limit: our best variant",
    ),
    "smpo-limits": Entry(
        settings="smpo_jax.algorithms.smpo:SMPOLimits",
        make="smpo_jax.algorithms.smpo:make",
        improver="natural step",
        paper=_SMPO,
        year=2025,
        summary="the same for several limits at once: the policy is told which one holds",
        augmentation="smpo_jax.algorithms.smpo.levels:augmentation",
        most_constraints=1,
    ),
    "smpo-ppo": Entry(
        settings="smpo_jax.algorithms.smpo:SMPOPPO",
        make="smpo_jax.algorithms.smpo:make",
        improver="passes",
        paper=_SMPO,
        year=2025,
        summary="the same modulation, as the paper's clipped passes",
    ),
    "smpo-paper": Entry(
        settings="smpo_jax.algorithms.smpo:SMPOPaper",
        make="smpo_jax.algorithms.smpo:make",
        improver="passes",
        paper=_SMPO,
        year=2025,
        summary="cost-modulated rewards, as literally as the paper can be read",
    ),
    "smpo-code": Entry(
        settings="smpo_jax.algorithms.smpo:SMPOCode",
        make="smpo_jax.algorithms.smpo:make",
        improver="passes",
        paper=_SMPO,
        year=2025,
        summary="cost-modulated advantages, as in the author's published code",
    ),
    "smpo-earlier": Entry(
        settings="smpo_jax.algorithms.smpo:SMPOEarlier",
        make="smpo_jax.algorithms.smpo:make",
        improver="passes",
        paper=_SMPO,
        year=2025,
        summary="with the weight of the author's earlier experiments, never negative",
    ),
    "ppo": Entry(
        settings="smpo_jax.algorithms.unconstrained:PPO",
        make="smpo_jax.algorithms.unconstrained:make",
        improver="passes",
        paper="Schulman et al., Proximal Policy Optimization Algorithms, arXiv 1707.06347",
        year=2017,
        summary="clipped surrogate; ignores costs",
    ),
    "trpo": Entry(
        settings="smpo_jax.algorithms.unconstrained:TRPO",
        make="smpo_jax.algorithms.unconstrained:make",
        improver="natural step",
        paper="Schulman et al., Trust Region Policy Optimization, arXiv 1502.05477",
        year=2015,
        summary="one natural-gradient step; ignores costs",
    ),
    "ppo_lag": Entry(
        settings="smpo_jax.algorithms.lagrangian:PPOLag",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="passes",
        paper=_LAGRANGIAN,
        year=2019,
        summary="PPO that pays for cost, at a price found by gradient ascent",
    ),
    "trpo_lag": Entry(
        settings="smpo_jax.algorithms.lagrangian:TRPOLag",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="natural step",
        paper=_LAGRANGIAN,
        year=2019,
        summary="TRPO that pays for cost, at a price found by gradient ascent",
    ),
    "pid_lag": Entry(
        settings="smpo_jax.algorithms.lagrangian:PIDLag",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="passes",
        paper=_PID,
        year=2020,
        summary="PPO that pays for cost, at a price that a PID controller sets",
    ),
    "trpo_pid": Entry(
        settings="smpo_jax.algorithms.lagrangian:TRPOPID",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="natural step",
        paper=_PID,
        year=2020,
        summary="TRPO that pays for cost, at a price that a PID controller sets",
    ),
    "rcpo": Entry(
        settings="smpo_jax.algorithms.lagrangian:RCPO",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="natural step",
        paper="Tessler et al., Reward Constrained Policy Optimization, arXiv 1805.11074",
        year=2019,
        summary="trpo_lag without a line search",
    ),
    "ipo": Entry(
        settings="smpo_jax.algorithms.lagrangian:IPO",
        make="smpo_jax.algorithms.lagrangian:make",
        improver="passes",
        paper="Liu et al., Interior-point Policy Optimization, arXiv 1910.09615",
        year=2020,
        summary="PPO that pays for cost, at a price that rises steeply near the limit",
    ),
    "p3o": Entry(
        settings="smpo_jax.algorithms.p3o:P3O",
        make="smpo_jax.algorithms.p3o:make",
        improver="passes",
        paper="Zhang et al., Penalized Proximal Policy Optimization, arXiv 2205.11814",
        year=2022,
        summary="PPO with an exact penalty on exceeding the limit",
    ),
    "focops": Entry(
        settings="smpo_jax.algorithms.focops:FOCOPS",
        make="smpo_jax.algorithms.focops:make",
        improver="passes",
        paper="Zhang et al., First Order Constrained Optimization, arXiv 2002.06506",
        year=2020,
        summary="projects the optimal policy of the trust-region problem on the network",
    ),
    "cup": Entry(
        settings="smpo_jax.algorithms.cup:CUP",
        make="smpo_jax.algorithms.cup:make",
        improver="passes",
        paper="Yang et al., Constrained Update Projection, arXiv 2209.07089",
        year=2022,
        summary="PPO on rewards, then a projection back towards the limit",
    ),
    "cpo": Entry(
        settings="smpo_jax.algorithms.cpo:CPO",
        make="smpo_jax.algorithms.cpo:make",
        improver="natural step",
        paper="Achiam et al., Constrained Policy Optimization, arXiv 1705.10528",
        year=2017,
        summary="natural-gradient step within a linear model of the constraint",
        most_constraints=2,
    ),
    "pcpo": Entry(
        settings="smpo_jax.algorithms.pcpo:PCPO",
        make="smpo_jax.algorithms.pcpo:make",
        improver="natural step",
        paper="Yang et al., Projection-Based Constrained Policy Optimization, arXiv 2010.03152",
        year=2020,
        summary="natural-gradient step, then projected onto the constraint",
        most_constraints=2,
    ),
    "crpo": Entry(
        settings="smpo_jax.algorithms.crpo:CRPO",
        make="smpo_jax.algorithms.crpo:make",
        improver="natural step",
        paper="Xu, Liang & Lan, CRPO: Primal Approach for Safe RL, arXiv 2011.05869",
        year=2021,
        summary="TRPO for the reward within the limit, against the cost beyond it",
    ),
    "ppo_saute": Entry(
        settings="smpo_jax.algorithms.saute:PPOSaute",
        make="smpo_jax.algorithms.saute:make",
        improver="passes",
        paper=_SAUTE,
        year=2022,
        summary="PPO that sees its budget and earns little once it is spent",
        augmentation="smpo_jax.algorithms.saute:augmentation",
        most_constraints=1,
    ),
    "trpo_saute": Entry(
        settings="smpo_jax.algorithms.saute:TRPOSaute",
        make="smpo_jax.algorithms.saute:make",
        improver="natural step",
        paper=_SAUTE,
        year=2022,
        summary="TRPO that sees its budget and earns little once it is spent",
        augmentation="smpo_jax.algorithms.saute:augmentation",
        most_constraints=1,
    ),
    "ppo_simmer": Entry(
        settings="smpo_jax.algorithms.simmer:PPOSimmer",
        make="smpo_jax.algorithms.simmer:make",
        improver="passes",
        paper=_SIMMER,
        year=2022,
        summary="Sauté PPO whose budget a PI controller sets",
        augmentation="smpo_jax.algorithms.saute:augmentation",
        most_constraints=1,
    ),
    "trpo_simmer": Entry(
        settings="smpo_jax.algorithms.simmer:TRPOSimmer",
        make="smpo_jax.algorithms.simmer:make",
        improver="natural step",
        paper=_SIMMER,
        year=2022,
        summary="Sauté TRPO whose budget a PI controller sets",
        augmentation="smpo_jax.algorithms.saute:augmentation",
        most_constraints=1,
    ),
    "ppo_early_terminated": Entry(
        settings="smpo_jax.algorithms.unconstrained:PPO",
        make="smpo_jax.algorithms.unconstrained:make",
        improver="passes",
        paper=_EARLY_TERMINATED,
        year=2021,
        summary="PPO on episodes that end when their cost reaches the limit",
        augmentation="smpo_jax.algorithms.early_terminated:augmentation",
        most_constraints=1,
    ),
    "trpo_early_terminated": Entry(
        settings="smpo_jax.algorithms.unconstrained:TRPO",
        make="smpo_jax.algorithms.unconstrained:make",
        improver="natural step",
        paper=_EARLY_TERMINATED,
        year=2021,
        summary="TRPO on episodes that end when their cost reaches the limit",
        augmentation="smpo_jax.algorithms.early_terminated:augmentation",
        most_constraints=1,
    ),
}


def current(name: str, fields: Collection[str] = ()) -> tuple[str, str | None]:
    """What a method is called today, and what to tell the user if that is another name.

    `trpo_smpo` became `smpo`, and what was `smpo` before became `smpo-ppo`; of the latter one sees
    in a saved run that it has PPO's hyperparameters.

    Args:
        name: as it is written in a file or on the command line.
        fields: the hyperparameters that are given with it.
    """
    now = "smpo" if name == "trpo_smpo" else name
    if name == "smpo" and "clip" in fields:
        now = "smpo-ppo"
    return now, None if now == name else f"the algorithm {name} is called {now} now"


def find(name: str) -> Entry:
    """The entry of that name, or a ValueError with the nearest ones."""
    return _lookup("algorithm", name, ALGORITHMS)


def settings_class(name: str) -> type:
    """The dataclass of a method's hyperparameters; ValueError if there is no such method."""
    return _load(find(name).settings)


def hyperparameters(name: str, **overrides: Any) -> Any:
    """The validated settings of a method: its defaults, then `overrides`.

    Raises:
        ValueError: an unknown name, with the nearest one, or a value that is not allowed.
    """
    record = settings_class(name)
    fields = {field.name: field for field in dataclasses.fields(record)}
    for override in overrides:
        _lookup(f"hyperparameter of {name}", override, fields)
    return record(**overrides)


def make(
    name: str, spec: "Spec", networks: "Networks | None" = None, **overrides: Any
) -> "Algorithm":
    """The method `name` for a problem, as a value of pure functions.

    Args:
        name: one of `ALGORITHMS`.
        spec: the problem (see `make_spec`). Some methods need environments that `augment` has made;
            of a loop of one's own, observations that end with what it adds.
        networks: policy, critics and normaliser of your own (see `networks.Networks`); what they
            leave out is made as the hyperparameters say.
        overrides: hyperparameters that differ from the method's defaults.

    Raises:
        ValueError: an unknown name, with the nearest one, or a value that is not allowed, also in
            the spec.
    """
    return build(name, spec, hyperparameters(name, **overrides), networks)


def build(
    name: str, spec: "Spec", settings: Any, networks: "Networks | None" = None
) -> "Algorithm":
    """The method `name` for a problem, with settings that are made already."""
    _load("smpo_jax.algorithms.base:require_possible")(spec)
    _require_keepable(name, spec.cost_limit)
    given = {} if networks is None else {"networks": networks}
    account = augmentation(name, settings, spec.cost_limit).start
    algorithm = _load(find(name).make)(spec, settings, **given)
    return algorithm._replace(account_size=len(account))


def augment(
    env: "SingleEnv", name: str, *, cost_limit: "Scalar" = 25.0, **overrides: Any
) -> "SingleEnv":
    """One environment with what the method `name` adds to it; itself if that is nothing.

    Args:
        env: one environment, before it goes into a `VectorEnv`.
        name: one of `ALGORITHMS`.
        cost_limit: that of the spec.
        overrides: the hyperparameters that `make` is given.
    """
    extra = augmentation(name, hyperparameters(name, **overrides), cost_limit)
    return _load("smpo_jax.augmentation:augment")(env, extra)


def augmentation(name: str, settings: Any, cost_limit: "PerCost") -> "Augmentation":
    """What a method adds to its environment; see `smpo_jax.augmentation.augment`."""
    entry = find(name)
    _require_keepable(name, cost_limit)
    if not entry.augmentation:
        return _load("smpo_jax.augmentation:NONE")
    return _load(entry.augmentation)(settings, cost_limit)


def _require_keepable(name: str, cost_limit: "PerCost") -> None:
    """Raises a ValueError if a method cannot keep so many limits."""
    number, most = _load("smpo_jax.core.constraints:count")(cost_limit), find(name).most_constraints
    if most is None or number <= most:
        return
    able = [
        other
        for other, entry in ALGORITHMS.items()
        if entry.most_constraints is None or entry.most_constraints >= number
    ]
    raise ValueError(
        f"{name} keeps {most} cost limit{'s' if most > 1 else ''} at most, and {number} are given; "
        f"those that keep as many are {', '.join(able)}"
    )


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _lookup(what: str, name: str, table: dict[str, Any]) -> Any:
    if name in table:
        return table[name]
    raise ValueError(f"unknown {what} {name!r}{suggest(name, sorted(table))}")
