"""Datasets: found, checked, split, and cut into augmented crops."""
