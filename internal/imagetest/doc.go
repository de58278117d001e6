// Package imagetest builds the container image the way `make image` does, with
// buildah, and runs it. It has nothing but tests.
package imagetest
