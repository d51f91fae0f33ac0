"""Staining from the browser: uploads, one bounded queue of jobs, and each job's tiles as they are made.

``uploads`` takes pictures in, ``jobs`` remembers what was asked for, ``queue`` runs it in processes of their own
(``worker``), ``live`` shows a job's tiles while it runs, ``room`` has the pages and their addresses.
"""
