"""One file per method. `registry` lists them and loads nothing until `make`."""
