"""The node's configuration: its shape, and a loader that says where each fault is."""
