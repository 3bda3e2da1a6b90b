"""Floor 3: figures, drawn from the saved files of a run and from nothing else."""
