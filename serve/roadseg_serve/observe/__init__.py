"""What operators see: metrics, traces, status."""
