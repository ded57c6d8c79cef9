"""Sound in, utterances out, sound back. Knows nothing of models or sockets."""
