"""The stages as a pipeline, over replicas or in one process, and as deployments of Ray Serve."""
