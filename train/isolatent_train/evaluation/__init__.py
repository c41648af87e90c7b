"""The field's metrics of a trained encoder, and how far its posteriors move under transformations."""

from isolatent_train.evaluation.metrics import evaluate

__all__ = ["evaluate"]
