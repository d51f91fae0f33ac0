"""Migrations from released tables of a study to the current ones; a released migration is never changed."""
