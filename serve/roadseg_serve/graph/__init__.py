"""The stages put together: across replicas, in one process, and on this machine."""
