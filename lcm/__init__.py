"""The concept space and the models that think in it. Knows nothing of devices or sockets."""
