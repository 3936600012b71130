"""How good a run is: scores, confidence intervals, robustness, the report."""
