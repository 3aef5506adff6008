"""HTTP itself: the shell, the table of routes, problems and the door. Knows no domain."""
