"""A training run: the loop, where it runs, its checkpoints and its progress."""
