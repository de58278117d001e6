// Package e2e holds the tests that drive the whole program: real clients on a
// real Prosody or ejabberd, events at a real RabbitMQ, an SNS emulator and an
// HTTP listener. It has no code of its own.
package e2e
