"""A training run: its record, its checkpoints, the loop, and the launchers for one process and for Ray."""
