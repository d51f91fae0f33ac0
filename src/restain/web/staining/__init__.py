"""Staining from the browser: uploads, a queue of jobs, a worker process per job, and the pages."""
