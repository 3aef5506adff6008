"""The command line: one verb a file. Start-up is part of its quality, so modules import late."""
