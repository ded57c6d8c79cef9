"""The server: HTTP and websockets on the `websockets` library. `server.py` is where to begin to read."""
