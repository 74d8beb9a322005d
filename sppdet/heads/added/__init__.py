"""Linear models of classes that came later, and what keeps them from everything else."""
