"""Environments outside JAX that tests write as one `step`, under the trainer's protocol."""

import numpy as np

from smpo_envs.step import HostStep


class Lockstep:
    """All environments in one half; a subclass has `num_envs`, `reset`, `step` and `again`.

    `step` returns what to act on next and a `Step`; `again(over)` begins episodes.
    """

    num_envs: int
    _reply: tuple[np.ndarray, HostStep[np.ndarray]]

    @property
    def halves(self):
        return [slice(0, self.num_envs)]

    @property
    def first_ages(self):
        return np.zeros(self.num_envs, int)

    def step(self, action):
        raise NotImplementedError

    def again(self, over):
        raise NotImplementedError

    def send(self, half, action):
        obs, step = self.step(action)
        self._reply = obs, HostStep(*step, lost=np.zeros(self.num_envs))

    def receive(self, half):
        return self._reply

    def restart(self, half, over):
        return self.again(over)

    def notices(self):
        return []

    def close(self):
        pass


def step(env, action):
    """One step of all halves."""
    for half, rows in enumerate(env.halves):
        env.send(half, action[rows])
    obs, steps = zip(*(env.receive(half) for half in range(len(env.halves))), strict=True)
    return np.concatenate(obs), HostStep(*map(np.concatenate, zip(*steps, strict=True)))
