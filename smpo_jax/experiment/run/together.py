"""`smpo-jax train`: alone, or together with the same command in other processes.

Process 0 leads: it does all that a process alone does, from reading the config to writing
checkpoints, and tells the others what to compute with it. They need neither the run's folder nor
any other file than the code of an environment of one's own.
"""

import contextlib
import dataclasses
import json
import sys
from typing import Any

import jax

from smpo_jax.experiment.errors import PROGRAM, UserError, exit_status, one_line
from smpo_jax.experiment.problem import Problem, provide
from smpo_jax.experiment.run import checkpoint, hosts, messages
from smpo_jax.experiment.run import train as runs
from smpo_jax.experiment.run.crew import ALONE, BuildError, Crew, Leader, build_together
from smpo_jax.experiment.run.messages import Order
from smpo_jax.experiment.run.program import Program, on_the_device
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.command_line import TrainRequest


def train(request: TrainRequest) -> int:
    """The one place where the number of processes decides how a run is started.

    Returns:
        The exit status: that of process 0, on all of them.
    """
    if request.cluster is None:
        return _start(request, ALONE)
    folder = request.resume or request.config.folder
    last_words = (
        "another process of this run is lost, which ends it; from its newest checkpoint it goes "
        f"on, with as many processes as there are then: smpo-jax train --resume {folder} "
        "--distributed"
    )
    company = hosts.join(request.cluster, last_words)
    try:
        if request.resume is not None:
            provide(1, checkpoint.threads(request.resume))
        status = _lead(request) if _is_leader() else _follow(request)
    except BaseException as error:
        company.fall_out(error)
    company.part()
    return status


def _is_leader() -> bool:
    try:
        return jax.process_index() == 0
    except RuntimeError as error:  # JAX_PLATFORMS names a device that is not there
        raise UserError(one_line(error)) from error


def _start(request: TrainRequest, crew: Crew) -> int:
    if request.resume is not None:
        return runs.go_on(request.resume, steps=request.steps, crew=crew).exit_status
    return runs.start(request.config, overwrite=request.overwrite, crew=crew).exit_status


def _lead(request: TrainRequest) -> int:
    """Trains, and dismisses the others however that ends."""
    status = exit_status(lambda: _start(request, Leader()))
    messages.tell(Order.END, status)
    return status


def _follow(request: TrainRequest) -> int:
    """Does what process 0 says, until that is all."""
    follower = _Follower(request)
    with StopOnSignal() as stop:
        while True:
            order, argument = messages.receive(int(stop.received or 0))
            if order == Order.END:
                break
            with contextlib.suppress(BuildError), messages.lost_told():
                follower.obey(order, argument)
    if argument in (1, 2):
        print(f"{PROGRAM}: error: process 0 has ended the run, and says why", file=sys.stderr)
    return argument


class _Follower:
    """What a process that is led has at hand: in the order in which it comes, and is asked for."""

    def __init__(self, request: TrainRequest) -> None:
        self._request = request
        self._config = request.config
        self._problem: Problem
        self._state: Any = None  # until a program has it
        self._program: Program | None = None

    def obey(self, order: Order, argument: int) -> None:
        """Does one thing at the same time as process 0."""
        if order == Order.BUILD:
            self._build()
            return
        loop = on_the_device(self._problem, self._problem.env)
        match order:
            case Order.INIT:
                self._state = loop.init(jax.random.key(self._config.seed))
            case Order.GO_ON:
                self._state = loop.going_on(messages.send_saved(self._state, loop.shape()))
            case Order.COMPILE:
                self._program = loop.compile(self._state)(self._state, print)
            case Order.ITERATE:
                assert self._program
                self._program.iterate({0: argument})
            case Order.WHOLE:
                state = self._program.state(0) if self._program else self._state
                assert self._problem.mesh
                messages.whole_state(state, self._problem.mesh)

    def _build(self) -> None:
        resumes, mapping = json.loads(messages.send(None))
        objection = ""
        try:
            self._config = config_file.from_mapping(mapping, where="process 0")
            objection = self._objection(resumes)
        except UserError as error:  # another version of this package
            objection = str(error)
        self._problem = build_together(self._config, objection)

    def _objection(self, resumes: bool) -> str:
        """Why this process was started for something else than process 0, if it was."""
        if resumes != (self._request.resume is not None):
            return f"it was started with{'out' if resumes else ''} --resume"
        if resumes:
            return ""
        # What process 0 has found out, and the others need not know.
        found = ("devices", "init_from", "checkpoint")
        known = {name: getattr(self._config, name) for name in found}
        own = dataclasses.replace(self._request.config, earlier_lengths=(), **known)
        difference = config_file.difference(own, self._config)
        return f"it was started for another run: {difference}" if difference else ""
