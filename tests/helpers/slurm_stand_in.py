"""Commands with the names of SLURM's, for machines without it: `install` puts them into a folder.

They do what submitit asks of them: `sbatch` runs a script once for every task of its array, as many
at a time as it says, `srun` runs a command with its streams in files, `scontrol requeue` has a task
run again, and `sacct` tells their states.
"""

import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scontrol")


def install(folder):
    """Puts the commands into a folder, where they also keep what they know of jobs."""
    folder.mkdir()
    here = str(Path(__file__).parent)
    for name in COMMANDS:
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {here!r})\n"
            f"import slurm_stand_in\nslurm_stand_in.run({name!r})\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def sbatch(home, script):
    number = 100 + len(list(home.glob("*.sh")))
    text = Path(script).read_text()
    (home / f"{number}.sh").write_text(text)
    found = re.search(r"#SBATCH --array=0-(\d+)%(\d+)", text)
    tasks, parallel = (int(found[1]) + 1, int(found[2])) if found else (0, 1)
    for name in names(number, tasks):
        (home / f"{name}.state").write_text("PENDING")
    arguments = [sys.executable, __file__, str(home), str(number), str(tasks), str(parallel)]
    devnull = subprocess.DEVNULL
    subprocess.Popen(
        arguments, stdin=devnull, stdout=devnull, stderr=devnull, start_new_session=True
    )
    print(f"Submitted batch job {number}")


def names(number, tasks):
    return [f"{number}_{task}" for task in range(tasks)] if tasks else [str(number)]


def run_all(home, number, tasks, parallel):
    """In the background: the jobs of an array."""
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda name: run_one(home, name), names(number, tasks)))


def run_one(home, name):
    number, _, task = name.partition("_")
    own = {"SLURM_JOB_ID": name.replace("_", "0")}
    if task:
        own |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}
    while True:
        (home / f"{name}.state").write_text("RUNNING")
        code = subprocess.run(["bash", home / f"{number}.sh"], env={**os.environ, **own}).returncode
        again = home / f"{name}.requeue"
        if not again.exists():
            break
        again.unlink()
    (home / f"{name}.state").write_text("FAILED" if code else "COMPLETED")


def srun(home, *arguments):
    options = {}
    words = list(arguments)
    while words[0].startswith("--"):
        word = words.pop(0)
        if word in ("--output", "--error"):
            options[word] = words.pop(0)
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    known = {
        "%A": array,
        "%a": os.environ.get("SLURM_ARRAY_TASK_ID"),
        "%j": os.environ["SLURM_JOB_ID"],
        "%t": "0",
    }
    for mark, value in known.items():
        options = {name: path.replace(mark, str(value)) for name, path in options.items()}
    with open(options["--output"], "a") as out, open(options["--error"], "a") as err:
        sys.exit(subprocess.run(words, stdout=out, stderr=err).returncode)


def sacct(home, *_):
    print("JobID|State|NodeList")
    for path in home.glob("*.state"):
        print(f"{path.stem}|{path.read_text()}|here")


def scontrol(home, command, name):
    assert command == "requeue"
    (home / f"{name}.requeue").touch()


def run(name):
    """One of the commands, with the arguments of this process."""
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol}
    commands[name](Path(sys.argv[0]).parent, *sys.argv[1:])


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), *map(int, sys.argv[2:]))
