"""Records episodes of pcgym's plants, which the native ones are compared with.

Run in an environment of its own, since pcgym brings newer packages than the tests use:

    python -m venv pcgym-env
    pcgym-env/bin/pip install --no-deps pcgym==0.1.8
    pcgym-env/bin/pip install "numpy<2.4" casadi do-mpc diffrax equinox gymnasium jax matplotlib
    pcgym-env/bin/python tests/helpers/record_plants.py

It writes tests/data/plants/{StirredTank,FourTanks}.npz. pcgym integrates with one of two solvers.
Both are recorded: `states`, `rewards`, `violations` and `obs` with diffrax, whose tolerance is set
to 1e-12 instead of 1e-8, and `casadi` with CVODES as it comes, in float32.
"""

import os
from pathlib import Path
from typing import NamedTuple

os.environ["JAX_ENABLE_X64"] = "1"

import diffrax  # pyrefly: ignore
import numpy as np
import pcgym  # pyrefly: ignore

DATA = Path(__file__).parents[1] / "data" / "plants"
N = 60  # rows of a schedule; an episode of pcgym's has a step less
TOLERANCE = 1e-12


class Episode(NamedTuple):
    """What an episode is given.

    Attributes:
        start: the state, `[S]`.
        actions: in [-1, 1], `[N - 1, A]`.
        set_points: `[N, K]`.
        disturbances: `[N, D]`, of which pcgym is told those that change.
    """

    start: np.ndarray
    actions: np.ndarray
    set_points: np.ndarray
    disturbances: np.ndarray


Limit = tuple[str, float, str]  # state, value, "<=" or ">="


class Model(NamedTuple):
    """How pcgym is told of a plant; ranges are (low, high) rows."""

    name: str
    duration: float
    tracked: tuple[str, ...]
    weights: tuple[float, ...]
    states: np.ndarray
    targets: np.ndarray
    inputs: np.ndarray
    disturbances: dict[str, tuple[float, float]]
    limits: tuple[Limit, ...]


STIRRED_TANK = Model(
    name="cstr",
    duration=26.0,
    tracked=("Ca",),
    weights=(1e3,),
    states=np.array([[0.7, 300.0], [1.0, 350.0]]),
    targets=np.array([[0.8], [0.9]]),
    inputs=np.array([[290.0], [310.0]]),
    disturbances={"Ti": (320.0, 380.0), "Caf": (0.9, 1.1)},
    limits=(("T", 327.0, "<="), ("T", 321.0, ">=")),
)
FOUR_TANKS = Model(
    name="four_tank",
    duration=1000.0,
    tracked=("h3", "h4"),
    weights=(1e2, 1e2),
    states=np.array([[0.0] * 4, [0.6] * 4]),
    targets=np.array([[0.0] * 2, [0.6] * 2]),
    inputs=np.array([[0.1] * 2, [10.0] * 2]),
    disturbances={},
    limits=(("h1", 0.25, "<="), ("h2", 0.25, "<=")),
)


def settings(model: Model, episode: Episode, limits: tuple[Limit, ...], method: str) -> dict:
    """What pcgym is told of one episode."""
    targets = {name: list(episode.set_points[:, i]) for i, name in enumerate(model.tracked)}
    space = np.concatenate([model.states, model.targets], axis=1)
    told = {
        "N": N,
        "tsim": model.duration,
        "SP": targets,
        "o_space": {"low": space[0], "high": space[1]},
        "a_space": {"low": model.inputs[0], "high": model.inputs[1]},
        "x0": np.concatenate([episode.start, episode.set_points[0]]),
        "r_scale": dict(zip(model.tracked, model.weights, strict=True)),
        "model": model.name,
        "normalise_a": True,
        "normalise_o": True,
        "integration_method": method,
    }
    changing = {
        name: episode.disturbances[:, i]
        for i, name in enumerate(model.disturbances)
        if np.ptp(episode.disturbances[:, i])
    }
    if changing:
        bounds = np.array([model.disturbances[name] for name in changing]).T
        told["disturbances"] = changing
        told["disturbance_bounds"] = {"low": bounds[0], "high": bounds[1]}
    if limits:
        states = {state: [x for x in limits if x[0] == state] for state, _, _ in limits}
        told |= {
            "constraints": {state: [x[1] for x in each] for state, each in states.items()},
            "cons_type": {state: [x[2] for x in each] for state, each in states.items()},
            "done_on_cons_vio": False,
            "r_penalty": False,
        }
    return told


def play(
    model: Model, episode: Episode, limits: tuple[Limit, ...] = (), method: str = "jax"
) -> dict[str, np.ndarray]:
    """States, rewards, observations, and by how much the one limit is broken."""
    env = pcgym.make_env(settings(model, episode, limits, method))
    obs = [env.reset()[0]]
    if method == "jax":
        controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
        env.int_eng.step_controller = controller
    size = len(episode.start)
    states, rewards = [np.array(env.state[:size], float)], []
    done, info = False, {}
    for action in episode.actions:
        seen, reward, done, _, info = env.step(action)
        states.append(np.array(env.state[:size], float))
        rewards.append(float(np.squeeze(reward)))
        obs.append(np.array(seen, float))
    assert done  # pcgym's episode is over here
    out = {"states": np.array(states), "rewards": np.array(rewards), "obs": np.array(obs)}
    if limits:
        out["violations"] = info["cons_info"][0, : N - 1, 0]
    return out


def record(model: Model, episodes: dict[str, Episode], path: Path) -> None:
    """Plays all episodes, with each limit and each solver, and writes what came of them."""
    width = model.states.shape[1] + len(model.tracked)
    rows: dict[str, list[np.ndarray]] = {}
    for name, episode in episodes.items():
        # pcgym notes only the first limit that is broken in a step.
        by_limit = [play(model, episode, (limit,)) for limit in model.limits]
        casadi = play(model, episode, method="casadi")["states"]
        one = by_limit[0]
        apart = np.abs(casadi - one["states"]).max(0)
        print(f"{name}: solvers differ by {apart}", flush=True)
        violations = np.stack([each["violations"] for each in by_limit], axis=1)
        record = {
            **episode._asdict(),
            "states": one["states"],
            "rewards": one["rewards"],
            "obs": one["obs"][:, :width],
            "violations": violations,
            "casadi": casadi.astype(np.float32),
        }
        for key, value in record.items():
            rows.setdefault(key, []).append(value)
    arrays = {key: np.stack(values) for key, values in rows.items()}
    np.savez_compressed(path, **{"names": np.array(list(episodes)), **arrays})  # pyrefly: ignore
    print(f"{path}: {path.stat().st_size} bytes")


def held(rng: np.random.Generator, size: int, steps: int) -> np.ndarray:
    """Random actions, each held for some steps."""
    drawn = rng.uniform(-1, 1, (-(-(N - 1) // steps), size))
    return np.repeat(drawn, steps, axis=0)[: N - 1]


def bang(steps: int) -> np.ndarray:
    """Actions from one end to the other and back, each for some steps."""
    return np.where(np.arange(N - 1) // steps % 2, -1.0, 1.0)[:, None]


def by_parts(*values) -> np.ndarray:
    """A column, each value of which holds for an equal part of the episode."""
    return np.repeat(np.array(values, float), N // len(values), axis=0).reshape(N, -1)


def stirred_tank() -> dict[str, Episode]:
    """Calm ones, and some in which the reaction runs away."""
    rng = np.random.default_rng(0)
    benchmark = by_parts(0.85, 0.9, 0.87)
    usual = by_parts((350.0, 1.0))
    start = np.array([0.8, 325.0])
    feed = usual + np.column_stack([by_parts(0, -5, -5, 0), np.zeros(N)])
    both = usual + np.column_stack([rng.uniform(-8, 8, N), rng.uniform(-0.04, 0.04, N)])
    alternating = np.tile([[0.86], [0.9]], (N // 2, 1))
    mild = 0.3 * rng.uniform(-1, 1, (N - 1, 1)) - 0.1
    one = np.ones((N - 1, 1))
    return {
        "constant": Episode(start, 0 * one, benchmark, usual),
        "mild": Episode(start, mild, benchmark, usual),
        "mild_feed": Episode(start, mild, benchmark, feed),
        "held_both": Episode(np.array([0.9, 321.0]), held(rng, 1, 3) * 0.6, alternating, both),
        "coldest": Episode(start, -one, alternating, feed),
        "random_hot": Episode(start, rng.uniform(-1, 1, (N - 1, 1)), benchmark, feed),
        "hottest": Episode(start, one, benchmark, usual),
        "bang": Episode(start, bang(10), benchmark, both),
    }


def four_tanks() -> dict[str, Episode]:
    """Full, empty, and in between."""
    rng = np.random.default_rng(1)
    benchmark = by_parts((0.5, 0.2), (0.1, 0.3))
    other = by_parts((0.2, 0.3), (0.4, 0.1), (0.3, 0.3))
    none = np.zeros((N, 0))
    start = np.array([0.141, 0.112, 0.072, 0.42])
    one = np.ones((N - 1, 2))
    return {
        "constant": Episode(start, 0.4 * one, benchmark, none),
        "random": Episode(start, rng.uniform(-1, 1, (N - 1, 2)), benchmark, none),
        "held": Episode(np.array([0.2, 0.05, 0.3, 0.1]), held(rng, 2, 6), other, none),
        "fullest": Episode(start, one, benchmark, none),
        "emptiest": Episode(start, -one, other, none),
        "bang": Episode(start, bang(8) * one, other, none),
    }


if __name__ == "__main__":
    DATA.mkdir(parents=True, exist_ok=True)
    record(STIRRED_TANK, stirred_tank(), DATA / "StirredTank.npz")
    record(FOUR_TANKS, four_tanks(), DATA / "FourTanks.npz")
