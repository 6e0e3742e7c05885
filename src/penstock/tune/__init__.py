"""Finds the settings a model is served best with on this machine: starts the real server with each, and loads it."""
