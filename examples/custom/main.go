// Command custom is eventpusher with a filter and a destination of its own.
package main

import (
	"os"

	"eventpusher/program"
)

func main() {
	os.Exit(program.Main("custom 1.0", program.Filter[pseudonym]("pseudonym"), program.Destination[file]("file")))
}
