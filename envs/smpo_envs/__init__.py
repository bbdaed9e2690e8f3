"""Native JAX versions of the Safety-Gymnasium tasks."""
