"""Policies on disk: one artifact, a directory that needs nothing beside itself."""
