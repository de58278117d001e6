// Package notices has the licences of all that is linked into the program: the licences ask
// that their texts go along with it.
package notices

import _ "embed"

// Text is the program's own licence, and those of the modules that it is built from, each
// behind the names and versions of its modules. A test makes it from go.mod.
//
//go:embed NOTICE
var Text string
