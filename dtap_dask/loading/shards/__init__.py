"""Shards: fetched, opened, and their records decoded."""
