"""Files of the workspace for clients. Knows no processes."""
