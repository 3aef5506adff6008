"""WebSockets: their upgrade, what clients ask and watch, and when what is sent."""
