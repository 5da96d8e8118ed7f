"""Trained models as ONNX files that say what the model says; :mod:`armbench_runtime` runs them without torch."""
