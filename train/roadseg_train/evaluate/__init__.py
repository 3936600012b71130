"""How good a run is: scores, intervals, robustness, the report."""
