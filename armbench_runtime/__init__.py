"""Exported models without torch: ``Detector.from_onnx('model.onnx').predict(['photo.jpg'], min_score=0.5)``.

numpy, pillow, pycocotools and onnxruntime are enough.
"""

from armbench_runtime.detector import Detector, Prediction
from armbench_runtime.images import InputError, UnreadableImageError

__all__ = ['Detector', 'InputError', 'Prediction', 'UnreadableImageError']
