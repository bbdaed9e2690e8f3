"""Everything with a side effect: files, clocks, signals and the command line.

The layers below are pure; this one turns them into runs that can be started, watched, killed,
resumed, evaluated, plotted and timed. Nothing is imported here, so that `smpo-jax --help` does
not wait for jax.
"""
