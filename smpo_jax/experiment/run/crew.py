"""Who makes a run: this process alone, or with others that it leads."""

import contextlib
import dataclasses
import json
from typing import Protocol

import jax

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import Problem, build, provide
from smpo_jax.experiment.run import messages
from smpo_jax.experiment.run.messages import Order
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config


class BuildError(UserError):
    """One of the processes cannot take part, as all of them know."""


class Crew(Protocol):
    """The processes that make a run."""

    def counted(self, config: Config) -> Config:
        """A new run with the number of devices that they have.

        Raises:
            UserError: it asks for another number.
        """
        ...

    def build(self, config: Config, *, goes_on: bool = False) -> Problem:
        """The problem of a run; see `problem.build`.

        Args:
            config: the run.
            goes_on: it has begun, maybe with another number of devices than there are now.
        """
        ...


class Alone:
    """This process."""

    def counted(self, config: Config) -> Config:
        """As it asks for."""
        return config

    def build(self, config: Config, *, goes_on: bool = False) -> Problem:
        """On as many devices as it asks for; if it goes on with fewer, on those that fit."""
        provide(config.devices)
        there = config.devices
        if goes_on:
            with contextlib.suppress(RuntimeError):  # which `build` tells
                there = min(there, jax.device_count())
        fitting = (number for number in range(there, 0, -1) if config.devices % number == 0)
        problem = build(config, devices=next(fitting))
        if problem.mesh is not None and problem.mesh.is_multi_process:
            raise UserError(
                "devices: some are those of other processes, with which only the command `smpo-jax "
                "train --distributed` trains"
            )
        return problem


ALONE = Alone()


class Leader:
    """Process 0 of several."""

    def counted(self, config: Config) -> Config:
        """All devices of all processes."""
        there = jax.device_count()
        if config.devices not in (1, there):
            raise UserError(
                f"devices: the {jax.process_count()} processes have {there}, not {config.devices}; "
                "all of them are taken if it is not given"
            )
        return dataclasses.replace(config, devices=there)

    def build(self, config: Config, *, goes_on: bool = False) -> Problem:
        """On all devices of all processes.

        Raises:
            UserError: also if another process cannot, or was started for another run.
        """
        messages.tell(Order.BUILD)
        messages.send(json.dumps([goes_on, config_file.as_mapping(config)]).encode())
        return build_together(config)


def build_together(config: Config, objection: str = "") -> Problem:
    """Builds the problem of a run where all processes do.

    Args:
        config: the run.
        objection: why this process cannot take part, if it cannot.

    Raises:
        BuildError: one cannot; the same on all of them.
    """
    problem = None
    if not objection:
        try:
            problem = build(config, devices=jax.device_count())
        except UserError as error:
            objection = str(error)
    objections = messages.gather(objection)
    if problem is None or any(objections):
        told = {each: i for i, each in reversed(list(enumerate(objections))) if each}
        everywhere = len(told) == 1 and all(objections)
        raise BuildError(
            "; ".join(each if everywhere else f"process {i}: {each}" for each, i in told.items())
        )
    return problem
