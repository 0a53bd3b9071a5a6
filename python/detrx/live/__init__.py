"""Cameras, streams and files on one side, pictures and records on the other, and the loop between."""
