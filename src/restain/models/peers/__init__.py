"""Networks of the methods that restain is compared with, behind the interface of its own generator."""
