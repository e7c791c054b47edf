"""The project as a user gets it: built, installed, and run outside the checkout."""
