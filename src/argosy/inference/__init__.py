"""A small model server for several frameworks: ONNX, OpenVINO, scikit-learn and PyTorch, on CPUs.

python -m argosy.inference digits=digits.onnx --port 8080
"""
