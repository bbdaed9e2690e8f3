"""What a run and a command are told: read once into records, from files and the command line."""
