"""What happened to every instance."""
