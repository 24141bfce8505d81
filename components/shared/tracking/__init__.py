"""MLflow runs: one a step, with what it logs, also when the server is away for a while."""
