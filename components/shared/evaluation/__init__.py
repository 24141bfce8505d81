"""Comparing models: predictions, scores, the gate, pictures and the report."""
