"""The MLflow registry: what a version must stand, what it says of itself, and who hears of it."""
