"""Metrics, and the analysis of a detector's errors and of its precision and recall."""

from ssd_plugin.evaluation.voc_metric import VOCDetMetric

__all__ = ['VOCDetMetric']
