"""Migrations of the server's database. A released one is never changed."""
