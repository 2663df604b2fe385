"""Files and trees between this machine and a sandbox."""
