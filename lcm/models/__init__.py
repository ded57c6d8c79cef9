"""Large Concept Models: concepts in, the concepts that follow out. Knows nothing of text, sound or bundles."""
