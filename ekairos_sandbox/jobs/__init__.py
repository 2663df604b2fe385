"""Commands as jobs: directories inside the sandbox that outlive every connection.

A command is started at most once, runs without any client, and leaves its result where any
process can collect it by the command's id.
"""
