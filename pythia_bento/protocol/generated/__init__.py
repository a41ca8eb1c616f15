"""Made by `make proto` from the .proto files; not to be edited."""
