"""The parent of all processes: forks, captures output, reaps, and restarts the server. Standard library
only."""
