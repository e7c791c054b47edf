"""What makes packages of the project: the Debian package, wheels for several machines, an image."""
