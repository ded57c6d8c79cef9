"""Inference: what the agent asks of models, done: on the thread that owns torch, or at a chat endpoint elsewhere."""
