"""Reviewing registered versions: what is in the registry, who decided what, and deciding."""
