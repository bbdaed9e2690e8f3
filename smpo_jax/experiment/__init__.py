"""Everything with a side effect: files, clocks, signals and the command line.

The layers below are pure; this one turns them into runs that can be started, watched, killed,
resumed, evaluated, plotted and timed. Its rooms, of which each knows only those before it:

    errors     how a run can end badly
    settings   configurations and options, read once into records
    problem    from a configuration to environment, specification and algorithm
    run        a training run under way: the host loop, checkpoints, metrics
    results    what is made of finished runs: policies, evaluations, films, curves
    suite      many runs as one experiment, and the report on them
    bench, cli

Nothing is imported here, so that `smpo-jax --help` does not wait for jax.
"""
