"""The live agent: where sound, concepts and clients meet."""
