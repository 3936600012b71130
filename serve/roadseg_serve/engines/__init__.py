"""What computes road probability from a batch: OpenVINO, ONNX Runtime, torch."""
