"""The rows of the table of routes, one module a domain."""
