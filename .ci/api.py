"""Writes the API reference of both packages as HTML: `python .ci/api.py [FOLDER]`.

Their names load on first use, which pdoc does not see, so that they are loaded for it first.
"""

import sys
import warnings
from pathlib import Path

import pdoc

import smpo_envs
import smpo_jax

# Packages that the names of the first two come from, for those who read or write a method.
MODULES = (
    "smpo_jax",
    "smpo_envs",
    "smpo_jax.algorithms",
    "smpo_jax.augmentation",
    "smpo_jax.core",
    "smpo_jax.networks",
    "smpo_jax.training",
    "smpo_jax.types",
    "smpo_envs.safety_gym",
)

if __name__ == "__main__":
    for package in (smpo_jax, smpo_envs):
        vars(package).update({name: getattr(package, name) for name in package.__all__})
    warnings.filterwarnings("error", message="Found .* does not resolve")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    pdoc.pdoc(*MODULES, output_directory=folder)
    print(f"API reference: {folder / 'index.html'}")
