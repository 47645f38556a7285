"""The `ldseg` command, a file for each subcommand; nothing imports this room."""
