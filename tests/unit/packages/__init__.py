"""What makes packages of the project."""
