"""Exported policies drive pcgym's own plants, which are not quite as they should be.

Needs neither JAX nor this package. In the environment of tests/helpers/record_plants.py, with
onnxruntime besides:

    python configs/suites/deployment.py StirredTank POLICY [POLICY ...] --out results.json

A policy is a file of `smpo-jax export`, `.onnx` or `.npz`. It runs in a process of its own, which
gets an observation and has PERIOD seconds to answer; the plant keeps the input that it had where
the answer is late. All drive the same episodes (tests/data/plants/scenarios.npz): the benchmark of
pcgym, then 20 drawn ones.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
READER = ROOT / "smpo_jax" / "experiment" / "results"
PERIOD = 0.02  # s between two decisions
STUCK = range(20, 30)  # steps in which the first actuator does not move
UNCERTAIN = {  # what is off, by the names of pcgym
    "StirredTank": ("q", "deltaHr", "k0", "UA"),
    "FourTanks": ("gamma_1", "gamma_2", "k1", "k2", "a1", "a2", "a3", "a4"),
}


class Fault(NamedTuple):
    """What is not as it should be.

    Attributes:
        noise: standard deviation of readings, as a share of the value.
        delay: steps by which inputs come late.
        off: share by which each uncertain parameter is off, up or down by chance.
        stuck: the first actuator stays where it is for some time.
    """

    noise: float = 0.0
    delay: int = 0
    off: float = 0.0
    stuck: bool = False


FAULTS = {
    "none": Fault(),
    "noise 1 %": Fault(noise=0.01),
    "one step late": Fault(delay=1),
    "parameters off by 10 %": Fault(off=0.1),
    "parameters off by 20 %": Fault(off=0.2),
    "an actuator stuck": Fault(stuck=True),
}


# The controller's process ------------------------------------------------------------------------


def decide(file: str) -> None:
    """Answers each line, an observation, with a line: the action and the seconds it took."""
    sys.path.insert(0, str(READER))
    from exported import load_exported  # pyrefly: ignore

    policy = load_exported(file)
    print(json.dumps(policy.observation_size), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        action = policy.predict(np.array(json.loads(line), np.float32))
        took = time.perf_counter() - began
        print(json.dumps([np.asarray(action, float).tolist(), took]), flush=True)
    assert "jax" not in sys.modules


class Controller:
    """A policy in a process of its own."""

    def __init__(self, file: str):
        command = [sys.executable, __file__, "--decide", file]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.observation_size = self._answer()

    def __call__(self, obs: np.ndarray) -> tuple[np.ndarray, float, float]:
        """The action, the seconds of the decision itself, and of question and answer."""
        began = time.perf_counter()
        assert self._process.stdin
        self._process.stdin.write(json.dumps(obs.tolist()) + "\n")
        self._process.stdin.flush()
        action, took = self._answer()
        return np.array(action), took, time.perf_counter() - began

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=10)

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the controller's process has ended; what it said stands above")
        return json.loads(line)


# The plant ---------------------------------------------------------------------------------------


def scaled(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Values in their units -> [-1, 1]."""
    low, high = ranges
    return 2.0 * (values - low) / (high - low) - 1.0


def observation(model, episode, readings: np.ndarray, t: int) -> np.ndarray:
    """What the policies were trained with: the set point is that of the coming step."""
    disturbances = np.array(list(model.disturbances.values())).reshape(-1, 2).T
    parts = (
        scaled(readings, model.states),
        scaled(episode.set_points[t + 1], model.targets),
        scaled(episode.disturbances[t], disturbances),
    )
    return np.concatenate(parts)


def pcgym_plant(plant: str, model, episode, off: float, rng: np.random.Generator):
    """An environment of pcgym with parameters that are off."""
    from pcgym import make_env, model_classes  # pyrefly: ignore
    from record_plants import settings  # pyrefly: ignore

    inside = getattr(model_classes, model.name)(int_method="casadi")
    for name in UNCERTAIN[plant]:
        sign = rng.choice([-1.0, 1.0])
        setattr(inside, name, getattr(inside, name) * (1.0 + off * sign))
    env = make_env(settings(model, episode, (), "casadi") | {"custom_model": inside})
    env.reset()
    return env


def drive(plant: str, model, episode, fault: Fault, controller: Controller, seed: int) -> dict:
    """One episode: return, violation, steps in which a limit was broken, seconds, late answers."""
    from plant_oracles import PRICES, beyond  # pyrefly: ignore

    rng = np.random.default_rng(seed)
    env = pcgym_plant(plant, model, episode, fault.off, rng)
    size, inputs = len(episode.start), model.inputs.shape[1]
    waiting = [np.zeros(inputs)] * fault.delay
    held = np.zeros(inputs)  # the middle of the range
    total, violation, broken, late, seconds = 0.0, 0.0, 0, 0, []
    for t in range(len(episode.set_points) - 1):
        tick = time.perf_counter()
        state = np.array(env.state[:size], float)
        readings = state * (1.0 + fault.noise * rng.standard_normal(size))
        action, took, round_trip = controller(observation(model, episode, readings, t))
        seconds.append(took)
        late += round_trip > PERIOD
        waiting.append(held if round_trip > PERIOD else np.clip(action, -1.0, 1.0))
        acting = waiting.pop(0).copy()
        if fault.stuck and t in STUCK:
            acting[0] = held[0]
        held = acting
        _, reward, _, _, _ = env.step(acting)
        over = PRICES[plant] * beyond(model, env.state)
        total, violation, broken = total + float(reward), violation + over, broken + (over > 0)
        time.sleep(max(0.0, PERIOD - (time.perf_counter() - tick)))
    return {
        "return": round(total, 4),
        "violation": round(violation, 4),
        "steps_violated": int(broken),
        "late": int(late),
        "seconds": seconds,
    }


def summary(episodes: list[dict]) -> dict:
    """Means over the drawn episodes; the benchmark, which comes first, by itself."""
    seconds = np.concatenate([each.pop("seconds") for each in episodes])
    drawn = {key: round(float(np.mean([e[key] for e in episodes[1:]])), 3) for key in episodes[0]}
    return {
        "drawn": drawn,
        "violation_largest": max(each["violation"] for each in episodes[1:]),
        "benchmark": episodes[0],
        "decision_ms_median": round(1e3 * float(np.median(seconds)), 3),
        "decision_ms_99": round(1e3 * float(np.quantile(seconds, 0.99)), 3),
    }


def main(plant: str, files: list[str], out: Path) -> None:
    """Drives all episodes with each policy under each fault."""
    sys.path.insert(0, str(HELPERS))
    from plant_oracles import MODELS  # pyrefly: ignore
    from record_plants import DATA, Episode, N  # pyrefly: ignore

    model = MODELS[plant]
    with np.load(DATA / "scenarios.npz") as file:
        rows = [file[f"{plant}_{x}"].astype(float) for x in ("start", "set_points", "disturbances")]
    nothing = np.zeros((N - 1, model.inputs.shape[1]))
    episodes = [Episode(s, nothing, p, d) for s, p, d in zip(*rows, strict=True)]
    results = json.loads(out.read_text()) if out.exists() else {}
    for file in files:
        controller = Controller(file)
        for name, fault in FAULTS.items():
            played = [
                drive(plant, model, episode, fault, controller, seed)
                for seed, episode in enumerate(episodes)
            ]
            label = Path(file).name
            results.setdefault(label, {})[name] = summary(played)
            print(label, name, results[label][name]["drawn"], flush=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
        controller.close()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plant", nargs="?", choices=list(UNCERTAIN))
    parser.add_argument("files", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--decide", metavar="FILE", help="be the controller")
    given = parser.parse_args()
    if given.decide:
        decide(given.decide)
    else:
        main(given.plant, given.files, given.out)
