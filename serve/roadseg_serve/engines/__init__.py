"""Inference engines, which compute road probability from a batch of pictures: OpenVINO, ONNX Runtime, PyTorch."""
