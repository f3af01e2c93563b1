"""The command line, one module a family of commands: parse, call, print. `ddim_ode.cli` puts them together."""
