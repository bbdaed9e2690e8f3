"""Safety-Gymnasium's navigation tasks, rewritten for JAX."""
