"""Loops: rollouts, iterations, evaluation."""
