// Package harness runs the real servers that eventpusher stands between -
// Prosody, ejabberd, RabbitMQ, an SNS emulator, an HTTP listener - for tests.
// Nothing but tests may import it. It works on Linux only, and as root where
// the servers demand it.
//
// Every server is a private child process on free loopback ports with a
// directory of its own below the system's temporary directory. A server that
// cannot be started fails the test with the end of its log; it never skips it.
// Start waits until the server really answers its protocol, not until its port
// is open. install.sh installs what the servers need; `make test` calls it.
//
// # Nothing is left running
//
// Between the test binary and each server stands a supervisor: the test binary
// itself, started once more. It is the server's subreaper, so that daemons
// which leave their process group (RabbitMQ's epmd) stay its descendants, and
// it holds one end of a pipe whose other end only the test binary has. However
// the test ends - cleanly, by a panic, by a timeout, by kill -9 - the kernel
// closes the pipe, and the supervisor kills every descendant and removes the
// directory.
//
// The supervisors need no goroutine in the test binary, so tests that use
// goleak need no exception for them. Clients, consumers and sinks do have
// goroutines; they end in the test's cleanup.
//
// # Environment
//
// HARNESS_KEEP=1 keeps the directories of servers whose test failed (and of
// those whose test binary was killed) and prints where they are.
package harness
