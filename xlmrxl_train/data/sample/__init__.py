"""The data that ships inside the package, so that `make demo` needs no network. See README.md here."""
