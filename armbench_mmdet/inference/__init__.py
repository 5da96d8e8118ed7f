"""Predictions on images of your own, from Python in three lines.

.. code-block:: python

    from armbench_mmdet.inference import Detector

    detector = Detector('configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py', 'work_dirs/demo')
    predictions = [prediction.above(0.5) for prediction in detector.predict('photos/*.jpg')]

Each :class:`Prediction` has ``path``, ``boxes``, ``scores``, ``labels``, ``masks`` and ``overlay()``.
``tools/infer.py`` is the same on the command line.
"""

from armbench_mmdet.inference.detector import Detector, Prediction

__all__ = ['Detector', 'Prediction']
