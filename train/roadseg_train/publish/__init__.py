"""A run as an artefact: ONNX, torch.export, int8, manifest."""
