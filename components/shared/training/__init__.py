"""What the steps that train have in common."""
