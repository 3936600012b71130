"""Serve road masks: a Ray Serve graph behind a FastAPI ingress, fed by published artefacts."""
