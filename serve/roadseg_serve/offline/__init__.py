"""Segmentation without a server: `roadseg-serve segment`."""
