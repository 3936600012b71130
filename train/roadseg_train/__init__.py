"""Train road segmentation models and publish them as artefacts."""
