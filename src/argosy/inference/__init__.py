"""A small server of models that is not bound to one maker: ONNX, OpenVINO, scikit-learn and PyTorch, on CPUs.

python -m argosy.inference digits=digits.onnx --port 8080
"""
