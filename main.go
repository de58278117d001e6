// Command eventpusher attaches to an XMPP server as an external component
// (XEP-0114), turns the presences and messages that the server forwards into
// events, filters them and publishes them to Amazon SNS, HTTP and RabbitMQ.
package main

import (
	"os"

	// Root certificates for images that have none, such as the project's own.
	_ "golang.org/x/crypto/x509roots/fallback"

	"eventpusher/internal/cli"
)

// version is set at build time.
var version = "dev"

func main() {
	os.Exit(cli.Main(cli.Process{
		Args:    os.Args[1:],
		Env:     os.Environ(),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Version: version,
	}))
}
