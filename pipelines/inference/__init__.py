"""A trained model asked about image files, and the table of its answers."""
