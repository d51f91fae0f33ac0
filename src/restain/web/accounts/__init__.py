"""Accounts: passwords, sessions, rate limit of sign-ins, and their pages."""
