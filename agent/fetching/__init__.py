"""Fetching: published files onto this machine, whole, whatever the network does meanwhile."""
