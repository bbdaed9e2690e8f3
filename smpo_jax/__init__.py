"""Safe reinforcement learning in JAX: SMPO and constrained baselines."""
