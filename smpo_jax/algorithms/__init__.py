"""The methods; `registry` has them by name. Modules are imported on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from smpo_jax.algorithms import (
        base,
        constrained,
        cpo,
        crpo,
        cup,
        early_terminated,
        focops,
        improvers,
        lagrangian,
        p3o,
        pcpo,
        recipes,
        registry,
        saute,
        simmer,
        smpo,
        unconstrained,
    )

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "base",
        "constrained",
        "cpo",
        "crpo",
        "cup",
        "early_terminated",
        "focops",
        "improvers",
        "lagrangian",
        "p3o",
        "pcpo",
        "recipes",
        "registry",
        "saute",
        "simmer",
        "smpo",
        "unconstrained",
    ],
)
