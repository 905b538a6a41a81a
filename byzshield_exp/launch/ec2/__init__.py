"""Runs on machines that are rented for them: Amazon EC2."""
