"""WebSockets: their upgrade, requests and viewers of clients, and the order of what is sent."""
