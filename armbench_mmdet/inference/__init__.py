"""Predictions on images of your own: ``Detector(config, checkpoint).predict(images)``."""

from armbench_mmdet.inference.detector import Detector, Prediction

__all__ = ['Detector', 'Prediction']
