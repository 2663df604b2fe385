"""The local open-source Daytona stack, as the console script ``ekairos-daytona-local`` runs it.

``main`` reads the command line, ``checkout`` keeps Daytona's sources, ``compose`` starts and stops
the containers, ``api`` asks the running service who it is. Only git, Docker and the standard
library are needed, on Linux, macOS and Windows.
"""
