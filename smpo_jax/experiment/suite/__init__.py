"""Many runs as one experiment: a grid from a file, worked off whatever interrupts it."""
