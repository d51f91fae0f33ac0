"""Who may come in: accounts with passwords, sessions, and what slows down those who guess.

``gate`` is asked at every request, ``routes`` are the pages, ``roster`` is what the command line uses.
"""
