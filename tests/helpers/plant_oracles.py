"""What model-predictive control makes of the plants, which policies are compared with.

Run in the environment of `record_plants.py`, after `plant_scenarios.py`:

    pcgym-env/bin/python tests/helpers/plant_oracles.py  # --times: only how long decisions take

It writes tests/data/plants/oracles.json, and in jackets.json the inputs of two in StirredTank's
benchmark. All control pcgym's own plant, without noise:

- `published`: pcgym's nonlinear MPC as it is. It reads the schedules two steps late, and the last
  row of them in its first step.
- `told`: the same MPC, told the set point that the next state is paid by, and the disturbances of
  the coming step. It holds them to be what they are to the end of its horizon.
- `..._within`: these two with pcgym's constraints, which bound the states that are predicted.
- `optimum_B`: all of the episode known beforehand, the best return of those whose violations come
  to at most B (`inf`: to anything), with 20 steps of Runge-Kutta between two decisions.
"""

import json
import math
import sys
import time
import warnings
from functools import partial
from typing import Any

import casadi  # pyrefly: ignore
import numpy as np
from pcgym import make_env  # pyrefly: ignore
from pcgym.oracle import oracle  # pyrefly: ignore
from record_plants import DATA, FOUR_TANKS, STIRRED_TANK, Episode, Model, N, settings

HORIZONS = {"StirredTank": 20, "FourTanks": 19}  # of the paper's scripts
MODELS = {"StirredTank": STIRRED_TANK, "FourTanks": FOUR_TANKS}
PRICES = {"StirredTank": 1.0, "FourTanks": 100.0}
BUDGETS = {"StirredTank": (0, 2, 5, 10, 20, 40, math.inf), "FourTanks": (0, 2, 5, 10, 20, math.inf)}
STATES = {"cstr": ("Ca", "T"), "four_tank": ("h1", "h2", "h3", "h4")}
SUBSTEPS = 20
NONE_FOUND = {"return": None, "violation": None, "steps_violated": None}


def play(model: Model, episode: Episode, decide, price: float) -> dict[str, Any]:
    """An episode of pcgym's plant: return, violation, seconds of each decision."""
    env = make_env(settings(model, episode, (), "casadi"))
    env.reset()
    size = len(episode.start)
    low, high = model.inputs
    total, violation, broken, seconds, given = 0.0, 0.0, 0, [], []
    for t in range(N - 1):
        state = np.array(env.state[:size], float)
        began = time.perf_counter()
        inputs = np.asarray(decide(t, state), float).ravel()
        seconds.append(time.perf_counter() - began)
        given.append(inputs.round(4).tolist())
        _, reward, _, _, _ = env.step(2 * (np.clip(inputs, low, high) - low) / (high - low) - 1)
        over = price * beyond(model, env.state)
        total, violation, broken = total + float(reward), violation + over, broken + (over > 0)
    return {
        "return": round(total, 4),
        "violation": round(violation, 4),
        "steps_violated": int(broken),
        "seconds": seconds,
        "inputs": given,
    }


def beyond(model: Model, state: np.ndarray) -> float:
    """By how much the limits are broken."""
    names = STATES[model.name]
    total = 0.0
    for name, value, sign in model.limits:
        x = float(state[names.index(name)])
        total += max(x - value if sign == "<=" else value - x, 0.0)
    return total


def predictive(model: Model, episode: Episode, horizon: int, *, is_told: bool, within: bool):
    """pcgym's MPC as a function of the time and the state, and how often its solver failed."""
    limits = model.limits if within else ()
    made = oracle(make_env, settings(model, episode, limits, "casadi"), {"N": horizon})
    mpc, _ = made.setup_mpc()
    failures = []
    if is_told:
        mpc.p_fun = partial(told, mpc, model, episode, made.env.dt)
    mpc.x0 = episode.start
    mpc.set_initial_guess()

    def decide(t: int, state: np.ndarray) -> np.ndarray:
        del t
        inputs = mpc.make_step(state.reshape(-1, 1))
        failures.append(not mpc.solver_stats["success"])
        return inputs

    return decide, failures


def told(mpc, model: Model, episode: Episode, step: float, now: float):
    """What holds in the coming step."""
    row = min(round(float(np.squeeze(now)) / step) + 1, N - 1)
    parameters = mpc.get_p_template(1)
    parameters["_p", 0, "SP"] = episode.set_points[row].reshape(-1, 1)
    if np.ptp(episode.disturbances, axis=0).any():
        parameters["_p", 0, "d"] = episode.disturbances[row].reshape(-1, 1)
    return parameters


def optimal(model: Model, episode: Episode, budget: float, price: float) -> np.ndarray:
    """The inputs of the whole episode, `[N - 1, A]`, from its equations alone."""
    env = make_env(settings(model, episode, (), "casadi"))
    names = STATES[model.name]
    size, inputs = len(names), model.inputs.shape[1]
    x, u = casadi.SX.sym("x", size), casadi.SX.sym("u", inputs)
    d = casadi.SX.sym("d", max(len(model.disturbances), 1))
    given = casadi.vertcat(u, d) if model.disturbances else u
    rates = casadi.vertcat(*env.model(x, given))
    slope = casadi.Function("rates", [x, u, d], [rates])
    length, end = env.dt / SUBSTEPS, x
    for _ in range(SUBSTEPS):
        a = slope(end, u, d)
        b = slope(end + length / 2 * a, u, d)
        c = slope(end + length / 2 * b, u, d)
        e = slope(end + length * c, u, d)
        end = end + length / 6 * (a + 2 * b + 2 * c + e)
    step = casadi.Function("step", [x, u, d], [end])

    problem = casadi.Opti()
    states = problem.variable(size, N)
    steps = problem.variable(inputs, N - 1)  # in [-1, 1]
    over = problem.variable(len(model.limits), N - 1)
    low, high = model.inputs
    scale = model.states[1] - model.states[0]
    problem.subject_to(states[:, 0] == episode.start)
    error = 0
    for t in range(N - 1):
        acting = episode.disturbances[t + 1] if model.disturbances else np.zeros(1)
        volts = low + (steps[:, t] + 1) / 2 * (high - low)
        problem.subject_to((states[:, t + 1] - step(states[:, t], volts, acting)) / scale == 0)
        for i, name in enumerate(model.tracked):
            off = states[names.index(name), t + 1] - episode.set_points[t + 1, i]
            error += model.weights[i] * off**2
        for i, (name, value, sign) in enumerate(model.limits):
            now = states[names.index(name), t + 1]
            problem.subject_to(over[i, t] >= price * (now - value if sign == "<=" else value - now))
    problem.subject_to(casadi.vec(over) >= 0)
    problem.subject_to(problem.bounded(-1, casadi.vec(steps), 1))
    if math.isfinite(budget):
        problem.subject_to(casadi.sum1(casadi.vec(over)) <= budget)
    problem.minimize(error + 1e-6 * casadi.sumsqr(over) + 1e-9 * casadi.sumsqr(steps))
    guess = episode.start[:, None] + np.zeros((size, N))
    if model is STIRRED_TANK:
        guess[0] = episode.set_points[:, 0]
    problem.set_initial(states, guess)
    problem.solver("ipopt", {"print_time": 0}, {"print_level": 0, "sb": "yes", "max_iter": 2000})
    found = problem.solve()
    return low + (np.array(found.value(steps)).reshape(inputs, N - 1).T + 1) / 2 * (high - low)


def summary(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written of a controller: a list of each number, and how long it thinks."""
    seconds = np.concatenate([each.pop("seconds") for each in episodes])
    for each in episodes:
        each.pop("inputs", None)
    out: dict[str, Any] = {key: [each[key] for each in episodes] for key in episodes[0]}
    out["ms_mean"] = round(1e3 * seconds.mean(), 2)
    out["ms_99"] = round(1e3 * float(np.quantile(seconds, 0.99)), 2)
    return out


def main(plants: list[str], *, times: bool) -> None:
    """Plays all and writes the file; or only how long MPC takes, which depends on the machine."""
    path = DATA / "oracles.json"
    written = json.loads(path.read_text()) if path.exists() else {}
    with np.load(DATA / "scenarios.npz") as file:
        given = dict(file)
    for plant in plants:
        rows = [given[f"{plant}_{x}"] for x in ("start", "set_points", "disturbances")]
        nothing = np.zeros((N - 1, MODELS[plant].inputs.shape[1]))
        episodes = [
            Episode(s.astype(float), nothing, p.astype(float), d.astype(float))
            for s, p, d in zip(*rows, strict=True)
        ]
        if times:
            for name, result in with_mpc(plant, episodes)[0].items():
                written[plant][name] |= {key: result[key] for key in ("ms_mean", "ms_99")}
        else:
            written[plant], jackets = with_mpc(plant, episodes)
            if jackets:
                (DATA / "jackets.json").write_text(json.dumps(jackets))
            written[plant] |= at_best(plant, episodes)
        path.write_text(json.dumps(written, indent=1) + "\n")


def with_mpc(plant: str, episodes: list[Episode]) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The four ways of pcgym's MPC; of the tank the inputs in the benchmark of those told."""
    model, price = MODELS[plant], PRICES[plant]
    results: dict[str, Any] = {}
    jackets: dict[str, list[float]] = {}
    for name, is_told, within in (
        ("published", False, False),
        ("published_within", False, True),
        ("told", True, False),
        ("told_within", True, True),
    ):
        played = []
        for episode in episodes:
            decide, failures = predictive(
                model, episode, HORIZONS[plant], is_told=is_told, within=within
            )
            one = play(model, episode, decide, price)
            played.append(one | {"solver_failures": sum(failures)})
        if plant == "StirredTank" and is_told:
            jackets[name] = [jacket for (jacket,) in played[0]["inputs"]]
        results[name] = summary(played)
        tell(plant, name, results[name])
    return results, jackets


def at_best(plant: str, episodes: list[Episode]) -> dict[str, Any]:
    """The optimum for each budget."""
    model, price = MODELS[plant], PRICES[plant]
    results: dict[str, Any] = {}
    for budget in BUDGETS[plant]:
        played = []
        for episode in episodes:
            try:
                inputs = optimal(model, episode, budget, price)
            except RuntimeError:  # no such inputs, or none found
                played.append(NONE_FOUND | {"seconds": [0.0]})
                continue
            played.append(play(model, episode, lambda t, _, u=inputs: u[t], price))
        out = summary(played)
        del out["ms_mean"], out["ms_99"]
        results[f"optimum_{budget}"] = out
        tell(plant, f"optimum_{budget}", out)
    return results


def tell(plant: str, name: str, result: dict[str, Any]) -> None:
    """A line for whoever waits."""
    values = {key: [x for x in result[key] if x is not None] for key in ("return", "violation")}
    means = {key: round(float(np.mean(x)), 3) if x else None for key, x in values.items()}
    firsts = {key: result[key][0] for key in values}
    print(
        plant,
        name,
        "mean",
        means,
        "benchmark",
        firsts,
        result.get("ms_mean"),
        result.get("ms_99"),
        "failed",
        sum(result.get("solver_failures", [])),
        "none found",
        result["return"].count(None),
        flush=True,
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    words = sys.argv[1:]
    plants = [word for word in words if word != "--times"]
    main(plants or list(MODELS), times="--times" in words)
