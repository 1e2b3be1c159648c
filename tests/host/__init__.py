"""What holds on every host: tests that need nothing but HTTP.

`make test` runs them on the embedded host, `make test-host` on any other. Environment variables say which:

    HOST_COMMAND   starts a host, with the sandbox as its API: all tests run
    HOST_URL       a host that runs already: only what reads, and what must be refused, so that no invented record gets
                   into somebody's register; KEY is its function key
    SANDBOX_URL    the sandbox that the running host posts to: all tests run but those that kill the host
"""
