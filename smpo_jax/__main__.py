"""`python -m smpo_jax` is the command `smpo-jax`."""

import sys

from smpo_jax.experiment.cli import main

sys.exit(main())
