"""Where a run sets out from: the beginning, what another has learnt, or its newest checkpoint."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import Problem, build, made_with
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.run.program import loop_of
from smpo_jax.experiment.run.run_folder import has_metrics
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.types import LearnerState, Spec, TrainState

Say = Callable[[str], None]


class StartingPoint(NamedTuple):
    """Where a run sets out from."""

    state: TrainState
    iteration: int


def pinned(config: Config) -> Config:
    """The config with the checkpoint named that `init_from` means now; the source may train on.

    Raises:
        UserError: there is no such run, or no such checkpoint.
    """
    if config.init_from is None:
        return config
    if config.init_from.resolve() == config.folder.resolve():
        raise UserError(f"init_from: a run cannot start from itself, {config.folder}")
    with _source(config) as (_, checkpoints):
        iteration = checkpoints.find(config.checkpoint)
    return dataclasses.replace(config, init_from=config.init_from.resolve(), checkpoint=iteration)


def initial(config: Config, problem: Problem, say: Say = print) -> StartingPoint:
    """The beginning of a run: new, or with what another has learnt.

    Raises:
        UserError: the other's networks have other sizes.
    """
    key = jax.random.key(config.seed)
    loop = loop_of(problem)
    state = loop.init(key)
    if config.init_from is not None:
        learner = _with_learnt(state.learner, config, problem, say)
        state = loop.going_on(state.replace(learner=learner))
    return StartingPoint(state, 0)


def newest(config: Config, problem: Problem, folder: Path, say: Say = print) -> StartingPoint:
    """Where a run goes on: at its newest checkpoint, or at the beginning if it never started.

    Raises:
        UserError: its checkpoints are lost, or those of another run.
    """
    with Checkpoints(folder, config, write=True) as checkpoints:
        if not checkpoints.iterations() and not has_metrics(folder):
            return initial(config, problem, say)
        loop = loop_of(problem)
        found = checkpoints.restore(loop.shape())
        for iteration, why in found.damaged.items():
            say(f"checkpoint {iteration} is damaged ({why}); using {found.iteration} instead")
        if found.made_with != made_with():
            say(
                f"the checkpoint was made with {found.made_with} and this is {made_with()}: "
                "the run goes on, but its last digits may differ"
            )
        checkpoints.discard_after(found.iteration)
    return StartingPoint(loop.going_on(found.state), found.iteration)


@contextlib.contextmanager
def _source(config: Config) -> Iterator[tuple[Config, Checkpoints]]:
    """The run that another starts from."""
    assert config.init_from is not None
    try:
        source = config_file.load(config.init_from)
        with Checkpoints(config.init_from, source, write=False) as checkpoints:
            yield source, checkpoints
    except UserError as error:
        raise UserError(f"init_from: {error}") from error


def _with_learnt(new: LearnerState, config: Config, problem: Problem, say: Say) -> LearnerState:
    """A new learner with the parameters, moments and multiplier of another.

    Optimisers start anew: their moments belong to another loss, and the learning rate to another
    schedule. So does the count of iterations, and with it whatever decays.
    """
    with _source(config) as (source, checkpoints):
        _check_sizes(source, problem.spec)
        which = config.checkpoint
        found = checkpoints.restore(new.params, "learner/params", which)
        moments = checkpoints.restore(new.obs_moments, "learner/obs_moments", which).state
        where = f"{config.init_from} at iteration {found.iteration}"
        try:
            aux = checkpoints.restore(new.aux, "learner/aux", which).state
        except UserError:  # another method's, or of another rule
            say(f"starting from {where}, but what {config.algo} knows besides networks starts anew")
            return new.replace(params=found.state, obs_moments=moments)
    say(f"starting from {where}")
    return new.replace(params=found.state, obs_moments=moments, aux=aux)


def _check_sizes(source: Config, spec: Spec) -> None:
    theirs = build(dataclasses.replace(source, devices=1)).spec
    for name in ("observation_size", "action_size", "discrete"):
        if getattr(theirs, name) != getattr(spec, name):
            raise UserError(
                f"{source.algo} on {source.env} has {name}={getattr(theirs, name)}, and this run "
                f"{getattr(spec, name)}"
            )
