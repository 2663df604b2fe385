"""The command line; needs the extra ``cli``. It uses what the package offers to everybody."""
