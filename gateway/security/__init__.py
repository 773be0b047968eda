"""API keys and their scopes; signatures of MLflow's webhooks."""
