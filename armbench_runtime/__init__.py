"""Exported models without torch: numpy, pillow, pycocotools and onnxruntime are enough.

.. code-block:: python

    from armbench_runtime import Detector

    detector = Detector.from_onnx('model.onnx')
    predictions = list(detector.predict(['photo.jpg'], min_score=0.5))

Each :class:`Prediction` has ``path``, ``boxes``, ``scores``, ``labels`` and ``masks``, run lengths of COCO.
"""

from armbench_runtime.detector import Detector
from armbench_runtime.errors import InputError, UnreadableImageError
from armbench_runtime.prediction import Prediction

__all__ = ['Detector', 'InputError', 'Prediction', 'UnreadableImageError']
