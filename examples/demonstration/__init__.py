"""What `examples.demo` shows, and on what: one module a server, each with one function that gives a `Subject`."""
