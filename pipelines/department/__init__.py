"""A simulated reading room: what the order of the worklist does to critical studies, and to everybody else."""
