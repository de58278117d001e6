package component

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mellium.im/xmpp/stream"

	"eventpusher/component/trust"
)

// Reason is why there is no link; its values are also the result label of
// eventpusher_component_connects_total.
type Reason string

// The reasons.
const (
	Refused            Reason = "refused"             // nothing listens
	DNS                Reason = "dns"                 // the name does not resolve
	Timeout            Reason = "timeout"             // no answer to the connection attempt
	Unreachable        Reason = "unreachable"         // any other failure to connect
	TLSFailed          Reason = "tls"                 // no TLS, or a certificate that is not acceptable
	NotAuthorized      Reason = "not_authorized"      // wrong secret
	HostUnknown        Reason = "host_unknown"        // the server knows no such component
	Conflict           Reason = "conflict"            // the name is taken
	WrongPort          Reason = "wrong_port"          // something else listens there
	ImproperAddressing Reason = "improper_addressing" // unusable component name
	SeeOtherHost       Reason = "see_other_host"      // the server sends us elsewhere
	Silent             Reason = "silent"              // connected, but no answer to the handshake
	Shutdown           Reason = "shutdown"            // the server is going down
	Closed             Reason = "closed"              // the server closed the stream or the connection
	BrokenStream       Reason = "broken_stream"       // the server's XML cannot be read on
	StreamError        Reason = "stream_error"        // any other stream error
	NoPong             Reason = "no_pong"             // silence, and no answer to a ping
	Stalled            Reason = "stalled"             // the server does not take what we write
	Panicked           Reason = "panic"               // a defect of ours
)

// LinkError says in one sentence why the link is down and what helps.
type LinkError struct {
	Reason Reason
	// Config says that trying again is of no use until an operator changes something.
	Config bool
	// Text is the sentence; it never holds a secret or content of a stanza.
	Text string
	// Err is the cause, nil where Text says all.
	Err error
}

// Error returns the sentence.
func (e *LinkError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *LinkError) Unwrap() error { return e.Err }

// The ends of a stream that this package decides on itself.
var (
	errNoPong   = errors.New("no answer to a ping")
	errStalled  = errors.New("write timed out")
	errPanicked = errors.New("panic")
	errVerbose  = fmt.Errorf("more than %d KiB before the handshake is accepted", maxHandshake>>10)
)

// explainDial explains why no connection came about.
func explainDial(address string, timeout time.Duration, err error) *LinkError {
	e := &LinkError{Err: err}
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.As(err, &dns):
		e.Reason = DNS
		e.Text = fmt.Sprintf("the name %q does not resolve (%s): correct [component] address, or the DNS", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Reason = Refused
		e.Text = fmt.Sprintf("nothing listens at %s: start the XMPP server, or set [component] address to its component port (Prosody: component_ports; ejabberd: the listener with module ejabberd_service)", address)
	case errors.As(err, &netErr) && netErr.Timeout():
		e.Reason = Timeout
		e.Text = fmt.Sprintf("no answer from %s within %s: check [component] address and firewalls", address, timeout)
	default:
		e.Reason = Unreachable
		e.Text = fmt.Sprintf("%s cannot be reached (%v): check [component] address, the network and firewalls", address, err)
	}
	return e
}

// explainTLS explains a failed TLS handshake. Each text holds the reason of crypto/tls.
// Only what a restart of the server or the network may cure counts as no matter of
// configuration.
func explainTLS(address, serverName string, err error) *LinkError {
	e := &LinkError{Reason: TLSFailed, Config: true, Err: err}
	var (
		header    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		netErr    net.Error
	)
	switch {
	case errors.As(err, &header):
		e.Text = fmt.Sprintf("%s does not speak TLS on this port (%v): use the port with direct TLS, or remove tls from [component]", address, err)
	case errors.As(err, &authority):
		e.Text = fmt.Sprintf("the certificate of %s comes from an authority that is not trusted here (%v): name its CA file in [component] tls.cacertfile", address, err)
	case errors.As(err, &hostname) && namesNothing(hostname.Certificate):
		e.Text = fmt.Sprintf("the certificate of %s has no subjectAltName (%v): have one issued with the subjectAltName %q; the common name does not count (RFC 9525)", address, err, "DNS:"+serverName)
	case errors.As(err, &hostname):
		e.Text = fmt.Sprintf("the certificate of %s is not for %q (%v): set [component] tls.server_name_indication.host to a name that it holds", address, serverName, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Text = fmt.Sprintf("the certificate of %s is expired or not valid yet (%v): renew it, or correct the clock of this machine", address, err)
	case errors.As(err, &netErr) && netErr.Timeout():
		e.Config = false
		e.Text = fmt.Sprintf("%s did not finish the TLS handshake (%v): check that [component] address is a port with direct TLS", address, err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET):
		e.Config = false
		e.Text = fmt.Sprintf("%s closed the connection during the TLS handshake (%v): check that the port speaks direct TLS and that its listener has a certificate (ejabberd: certfile inside the listener)", address, err)
	default:
		e.Text = fmt.Sprintf("the TLS handshake with %s failed (%v): check certificates, versions and ciphers in [component] tls", address, err)
	}
	return e
}

// namesNothing reports whether a certificate holds no name that a client may compare.
func namesNothing(c *x509.Certificate) bool { return len(c.DNSNames) == 0 && len(c.IPAddresses) == 0 }

// explainHandshake explains why the server did not let us in. heard is the
// beginning of what it said.
func explainHandshake(address, name string, timeout time.Duration, heard []byte, err error) *LinkError {
	var streamErr stream.Error
	if errors.As(err, &streamErr) {
		return explainRefusal(address, name, streamErr)
	}
	var netErr net.Error
	switch what := recognise(heard); {
	case bytes.HasPrefix(heard, []byte{0x15, 0x03}): // a TLS alert, RFC 8446 section 5.1
		return &LinkError{Reason: TLSFailed, Config: true, Err: err, Text: fmt.Sprintf(
			"%s speaks TLS on this port: add tls to [component], or set its address to the plain component port", address)}
	case what != "":
		return &LinkError{Reason: WrongPort, Config: true, Err: err, Text: fmt.Sprintf(
			"%s is not a component port, it answers like %s: set [component] address to the component port (5347 by default in Prosody)", address, what)}
	case errors.As(err, &netErr) && netErr.Timeout():
		return &LinkError{Reason: Silent, Err: err, Text: fmt.Sprintf(
			"%s took the connection but did not answer the handshake within %s: check that [component] address is the server's component port, not its client port", address, timeout)}
	case len(heard) == 0:
		return &LinkError{Reason: Closed, Err: err, Text: fmt.Sprintf(
			"%s closed the connection without a word: check that [component] address is the component port and whether that port wants TLS", address)}
	case ended(err):
		return &LinkError{Reason: Closed, Err: err, Text: fmt.Sprintf(
			"%s closed the connection during the handshake: look into the server's log", address)}
	}
	return &LinkError{Reason: BrokenStream, Err: err, Text: fmt.Sprintf(
		"%s does not answer as XEP-0114 says (%v): check that [component] address is the server's component port", address, err)}
}

// explainRefusal explains the stream errors that servers refuse a component with
// (observed on Prosody 0.12 and ejabberd 23), with the server's own words.
func explainRefusal(address, name string, err stream.Error) *LinkError {
	e := &LinkError{Config: true, Err: err}
	switch err.Err {
	case stream.NotAuthorized.Err:
		e.Reason = NotAuthorized
		e.Text = fmt.Sprintf("%s does not accept the secret of %q%s: make [component] secret equal to the server's (Prosody: component_secret; ejabberd: the password under hosts of the listener, which must list this name)", address, name, said(err))
	case stream.HostUnknown.Err:
		if strings.Contains(text(err), "does not serve") { // Prosody's client port
			e.Reason = WrongPort
			e.Text = fmt.Sprintf("%s is not a component port, it answers like a client port%s: set [component] address to the component port (5347 by default in Prosody)", address, said(err))
			break
		}
		e.Reason = HostUnknown
		e.Text = fmt.Sprintf("%s knows no component %q%s: declare it there (Prosody: Component %q, which must not be a VirtualHost), or correct [component] name", address, name, said(err), name)
	case stream.Conflict.Err:
		// The other connection may be an instance that stands by, or our own old
		// one that the server has not missed yet: worth trying again.
		e.Config = false
		e.Reason = Conflict
		e.Text = fmt.Sprintf("%q is taken at %s%s: another component is connected under this name (Prosody), or it is one of the server's own hosts (ejabberd); stop the other one, or choose another [component] name", name, address, said(err))
	case stream.InvalidNamespace.Err:
		e.Reason = WrongPort
		e.Text = fmt.Sprintf("%s refuses the namespace of components%s, so it is another kind of port: set [component] address to the component port (5347 by default in Prosody)", address, said(err))
	case stream.ImproperAddressing.Err:
		e.Reason = ImproperAddressing
		e.Text = fmt.Sprintf("%s cannot use %q as a component's domain%s: correct [component] name", address, name, said(err))
	default:
		return explainStreamError(address, err)
	}
	return e
}

// explainStreamError explains a stream error at any time.
func explainStreamError(address string, err stream.Error) *LinkError {
	e := &LinkError{Reason: StreamError, Err: err}
	switch err.Err {
	case stream.SeeOtherHost.Err:
		e.Reason, e.Config = SeeOtherHost, true
		e.Text = fmt.Sprintf("%s sends us to %q%s: set [component] address to that host", address, err.Content, said(err))
	case stream.SystemShutdown.Err:
		e.Reason = Shutdown
		e.Text = fmt.Sprintf("the server at %s is shutting down%s: it will be tried again", address, said(err))
	case stream.Conflict.Err:
		e.Reason = Conflict
		e.Text = fmt.Sprintf("%s gave our place to another connection under the same name%s: stop the other one, or choose another [component] name", address, said(err))
	default:
		e.Text = fmt.Sprintf("%s ended the stream with %s%s: look into the server's log", address, err.Err, said(err))
	}
	return e
}

// explainEnd explains why a stream that had been established ended.
func explainEnd(address string, pingTimeout time.Duration, err error) *LinkError {
	var streamErr stream.Error
	e := &LinkError{Err: err}
	switch {
	case errors.As(err, &streamErr):
		return explainStreamError(address, streamErr)
	case errors.Is(err, errPanicked):
		e.Reason, e.Text = Panicked, "a defect in eventpusher ended the stream: please report it with the log"
	case errors.Is(err, errNoPong):
		e.Reason = NoPong
		e.Text = fmt.Sprintf("%s was silent and did not answer a ping within %s: check the server and the network", address, pingTimeout)
	case errors.Is(err, errStalled):
		e.Reason = Stalled
		e.Text = fmt.Sprintf("%s took nothing that we wrote for %s: check the server and the network", address, pingTimeout)
	case err == nil:
		e.Reason, e.Text = Closed, fmt.Sprintf("%s ended the stream: it will be tried again", address)
	case ended(err):
		e.Reason, e.Text = Closed, fmt.Sprintf("%s closed the connection: it will be tried again", address)
	default:
		e.Reason = BrokenStream
		e.Text = fmt.Sprintf("the stream of %s cannot be read on (%v): look into the server's log", address, err)
	}
	return e
}

// ended reports whether the peer closed or reset the connection. encoding/xml
// turns the end of its input into a syntax error of this wording.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || closedHere(err) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "unexpected EOF")
}

// closedHere reports whether we closed the connection ourselves; io.Pipe and
// net.Pipe have an error of their own for it.
func closedHere(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// recognise says what speaks where a component port was expected, empty if that
// cannot be told.
func recognise(heard []byte) string {
	switch {
	case bytes.HasPrefix(heard, []byte("HTTP/")):
		return "a web server"
	case bytes.HasPrefix(heard, []byte("SSH-")):
		return "an SSH server"
	case bytes.Contains(heard, []byte("stream:features")),
		bytes.Contains(heard, []byte("'jabber:client'")), bytes.Contains(heard, []byte(`"jabber:client"`)):
		return "a client port"
	case bytes.Contains(heard, []byte("jabber:server")):
		return "a server-to-server port"
	}
	return ""
}

// said returns what the server said beside the condition, to stand behind what is
// explained; empty if it said nothing.
func said(err stream.Error) string {
	if t := text(err); t != "" {
		return " (the server says " + strconv.Quote(t) + ")"
	}
	return ""
}

// text returns what the server said beside the condition, shortened.
func text(err stream.Error) string {
	if len(err.Text) == 0 {
		return ""
	}
	return trust.Shortened(err.Text[0].Value)
}
