"""Datasets: finding, checking and splitting frames, and cutting augmented crops from them."""
