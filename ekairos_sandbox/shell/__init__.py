"""Getting exact bytes in and out of a POSIX sh: quoting, framed answers, files."""
