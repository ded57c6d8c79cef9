"""Recordings: sessions on disk, read back, replayed, compared and drawn."""
