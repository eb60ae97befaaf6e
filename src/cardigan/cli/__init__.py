"""The command line: parses, calls `cardigan.api`, prints. One file a command; nothing here imports torch before parsing is done."""
