"""A training run under way: compiled programs, and the host loop that reports and saves."""
