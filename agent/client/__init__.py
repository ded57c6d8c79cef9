"""The client: a session on a server elsewhere. What `noema talk --url` and `noema listen` talk with."""
