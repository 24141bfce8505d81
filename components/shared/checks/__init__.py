"""What the data must satisfy, and how that is shown."""
