"""A workload -> timed and traced runs, and the machine they ran on."""
