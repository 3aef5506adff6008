"""Directories as tar and zip streams, both ways. Blocks; knows no event loop and no HTTP."""
