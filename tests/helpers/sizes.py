"""What a whole iteration of training takes on an accelerator, told by its compiler.

    JAX_PLATFORMS=cpu python tests/helpers/sizes.py h100 PointGoal1 smpo

gives a line of `tests/data/sizes.jsonl`; `targets` says what has to be installed and set.
"""

import json
import sys

import jax
import targets

import smpo_envs
import smpo_jax as sx
from smpo_jax.training import loop

ENVIRONMENTS, ROLLOUT = 4096, 32


def sizes(target: str, task: str, algo: str) -> dict[str, str | int]:
    """Bytes for each environment, of what is kept and of all, and of the program on disk."""
    env = smpo_envs.VectorEnv(sx.augment(smpo_envs.make(task), algo), ENVIRONMENTS)
    spec = sx.make_spec(env, rollout_length=ROLLOUT, total_iterations=10)
    algorithm = sx.make(algo, spec)
    state = jax.eval_shape(lambda key: loop.init(algorithm, env, key), jax.random.key(0))
    program = targets.lowered(target, loop.iteration(algorithm, env, spec), state).compile()
    memory, executable = program.memory_analysis(), program.runtime_executable()
    assert memory and executable
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {
        "target": target,
        "task": task,
        "algo": algo,
        "kept_bytes_per_environment": memory.argument_size_in_bytes // ENVIRONMENTS,
        "bytes_per_environment": (taken + memory.temp_size_in_bytes) // ENVIRONMENTS,
        "program_bytes": len(executable.serialize()),
    }


if __name__ == "__main__":
    print(json.dumps(sizes(*sys.argv[1:])))
