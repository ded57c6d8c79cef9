"""Live sessions: a client's conversation on this server, with or without a connection. `live_session.py` ties it up.

uplink.py     what the client sends → live_core.py, the core that may be brought back → delivery.py what it is told
listeners.py, live_recording.py, commentary.py, telemetry.py  follow a session; none of them changes it
"""
