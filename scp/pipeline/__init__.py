"""The processes of a running node, and the only code that knows several stages."""
