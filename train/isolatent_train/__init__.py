"""Training and evaluation of consistency-regularized variational auto-encoders."""
