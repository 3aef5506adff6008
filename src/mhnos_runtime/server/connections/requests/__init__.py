"""What clients ask: one table of requests, and a module for each domain with what its requests do."""
