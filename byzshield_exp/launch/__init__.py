"""HOW RUNS ARE STARTED: jobs, ranks, sweeps, Slurm and EC2."""
