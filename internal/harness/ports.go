//go:build linux

package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Ports come from below the kernel's default range for outgoing connections
// (32768 and up), so that nobody's client socket can take the port of a server
// that is down between a stop and a start.
const (
	firstPort = 15000
	lastPort  = 31999
)

// freePorts reserves n loopback ports until release is called. The reservation
// is an abstract Unix socket named after the port: it keeps the harnesses of
// parallel test binaries apart even while no server listens, and the kernel
// drops it when the process dies.
func freePorts(n int) (ports []int, release func(), err error) {
	var held []net.Listener
	release = func() {
		for _, l := range held {
			l.Close()
		}
	}
	for range 1000 {
		if len(ports) == n {
			return ports, release, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		lock, err := net.Listen("unix", fmt.Sprintf("@eventpusher-harness-port-%d", port))
		if err != nil {
			continue
		}
		probe, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			lock.Close()
			continue
		}
		probe.Close()
		held = append(held, lock)
		ports = append(ports, port)
	}
	release()
	return nil, nil, fmt.Errorf("no %d free ports between %d and %d", n, firstPort, lastPort)
}

// portTaken recognises in a log what servers say about a port that somebody
// else has taken between the reservation and their start.
func portTaken(log string) bool {
	log = strings.ToLower(log)
	return strings.Contains(log, "eaddrinuse") || strings.Contains(log, "address already in use")
}

// launchServer makes a server, lets prepare write its files and command for n
// fresh ports, and starts it; once more with other ports when one was taken.
// The ports stay reserved until the process ends or release is called.
func launchServer(name string, n int, prepare func(s *server, ports []int) error) (s *server, ports []int, release func(), err error) {
	for range 3 {
		ports, release, err = freePorts(n)
		if err != nil {
			return nil, nil, nil, err
		}
		s, err = newServer(name)
		if err != nil {
			release()
			return nil, nil, nil, err
		}
		err = prepare(s, ports)
		if err == nil {
			err = s.start()
		}
		if err == nil {
			return s, ports, release, nil
		}
		log := s.tail()
		err = fmt.Errorf("%s in %s: %w\n%s", name, s.dir, err, log)
		s.close(os.Getenv(keepEnv) != "")
		release()
		if !portTaken(log) {
			break
		}
	}
	return nil, nil, nil, err
}

// startServer is launchServer for a server that belongs to one test.
func startServer(t testing.TB, name string, n int, prepare func(s *server, ports []int) error) (*server, []int) {
	t.Helper()
	s, ports, release, err := launchServer(name, n, prepare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	s.closeAfter(t)
	return s, ports
}
