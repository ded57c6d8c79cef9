"""Thin command-line entries to training, evaluation and measurements."""
