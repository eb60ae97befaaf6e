"""The command line: parses options, calls `cardigan.api`, prints. One file per command; imports torch after parsing."""
