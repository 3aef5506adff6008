"""The wire: messages, frames, limits. Bytes in, values out; knows no socket, no event loop."""
