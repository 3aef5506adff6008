"""Everything that speaks HTTP and WebSocket. May be killed and started again at any time."""
