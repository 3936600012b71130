"""Export of a run as an artefact: ONNX, torch.export, int8, manifest."""
