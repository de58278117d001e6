// Command eventpusher attaches to an XMPP server as an external component
// (XEP-0114), turns the presences and messages that the server forwards into
// events, filters them and publishes them to Amazon SNS, HTTP and RabbitMQ.
package main

import (
	"os"

	"eventpusher/program"
)

// version is set at build time.
var version = "dev"

func main() { os.Exit(program.Main(version)) }
