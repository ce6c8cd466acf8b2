"""SafeMed-R1: the library behind the workflow's scripts, importable beside them without installation."""
