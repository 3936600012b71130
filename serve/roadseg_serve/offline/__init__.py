"""Masks without a server: `roadseg-serve segment`."""
