"""Settings as YAML, read strictly. Knows nothing of the parts it configures."""
