"""Keeping the registry and what stands around it small."""
