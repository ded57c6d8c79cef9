"""The store: sessions on disk, so that they survive a cut, a crash or a restart. `session_store.py` is its door."""
