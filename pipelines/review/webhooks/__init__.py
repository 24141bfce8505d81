"""Receiving what the MLflow server sends: its signature, what is new in it, and the line that a reviewer reads."""
