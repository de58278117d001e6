// Package program is the program eventpusher, for a main function of one's own that adds types of
// [[filter]] and [[destination]]. docs/custom.md tells how, examples/custom is an example.
package program

import (
	"os"

	// Root certificates for images that have none, such as the project's own.
	_ "golang.org/x/crypto/x509roots/fallback"

	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/internal/cli"
	"eventpusher/pusher/filter"
)

// Main runs the command that the process's arguments name, with all commands of eventpusher,
// and returns the exit code: 0 fine, 1 failed, 2 wrong usage. version is what the command
// version prints. Main blocks until the command ends; "run" ends after SIGINT or SIGTERM.
func Main(version string, own ...config.Type) int {
	return cli.Main(cli.Process{
		Args: os.Args[1:], Env: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr, Version: version, Own: own,
	})
}

// Destination returns a type of [[destination]] whose settings are a T. A pointer to T
// implements catalog.Builder: it names its keys, checks them and builds the backend.
func Destination[T any, P interface {
	*T
	catalog.Builder
}](name string) config.Type {
	return config.DestinationType(name, func() config.Settings { return P(new(T)) })
}

// Filter returns a type of [[filter]] whose settings are a T. A pointer to T implements
// filter.Builder: it names its keys, checks them and builds the filter.
func Filter[T any, P interface {
	*T
	filter.Builder
}](name string) config.Type {
	return config.FilterType(name, func() config.Settings { return P(new(T)) })
}
