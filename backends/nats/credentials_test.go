package nats_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"eventpusher/backends/backendtest"
	"eventpusher/internal/harness"
)

// operator is who vouches for the accounts of servers in operator mode, by signed tokens.
type operator struct {
	t    *testing.T
	dir  string
	keys nkeys.KeyPair
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	keys, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	return &operator{t, t.TempDir(), keys}
}

// token signs claims.
func (o *operator) token(claims jwt.Claims, by nkeys.KeyPair) string {
	o.t.Helper()
	text, err := claims.Encode(by)
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// public returns the public key of keys.
func (o *operator) public(keys nkeys.KeyPair, err error) (string, nkeys.KeyPair) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
	key, err := keys.PublicKey()
	if err != nil {
		o.t.Fatal(err)
	}
	return key, keys
}

// account returns the token of an account that has JetStream, and its keys.
func (o *operator) account() (public, token string, keys nkeys.KeyPair) {
	public, keys = o.public(nkeys.CreateAccount())
	claims := jwt.NewAccountClaims(public)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	return public, o.token(claims, o.keys), keys
}

// credentials writes the file of a new user of an account.
func (o *operator) credentials(name string, account nkeys.KeyPair, change func(*jwt.UserClaims)) (file string) {
	o.t.Helper()
	public, keys := o.public(nkeys.CreateUser())
	claims := jwt.NewUserClaims(public)
	if change != nil {
		change(claims)
	}
	seed, err := keys.Seed()
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(o.token(claims, account), seed)
	if err != nil {
		o.t.Fatal(err)
	}
	file = filepath.Join(o.dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return file
}

// TestCredentials: a server in operator mode lets in who has a token of one of its accounts.
func TestCredentials(t *testing.T) {
	o := newOperator(t)
	public, _ := o.public(o.keys, nil)
	account, token, keys := o.account()
	_, _, strangers := o.account()
	system, _ := o.public(nkeys.CreateAccount()) // without JetStream, which it must not have
	server := harness.NATS(t, harness.NATSOptions{Extra: fmt.Sprintf("operator: %q\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %q, %s: %q }\n",
		o.token(jwt.NewOperatorClaims(public), o.keys), system, account, token, system, o.token(jwt.NewAccountClaims(system), o.keys))})
	owner := connect(t, server.URL(), natsgo.UserCredentials(o.credentials("owner", keys, nil)))
	owner.create(jetstream.StreamConfig{Subjects: []string{"events.>"}})

	broken := filepath.Join(o.dir, "broken")
	if err := os.WriteFile(broken, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, file, want string }{
		{"a user", o.credentials("user", keys, nil), ""},
		{"a user who may publish just that", o.credentials("narrow", keys, func(c *jwt.UserClaims) {
			c.Pub.Allow = jwt.StringList{"events.>"}
			c.Sub.Allow = jwt.StringList{"_INBOX.>"}
		}), ""},
		{"a user who may publish something else", o.credentials("other", keys, func(c *jwt.UserClaims) { c.Pub.Allow = jwt.StringList{"other.>"} }), "transient may not publish"},
		{"the time is over", o.credentials("expired", keys, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Minute).Unix() }), "paused check credentials_file"},
		{"a user of another account", o.credentials("stranger", strangers, nil), "paused check credentials_file"},
		{"nobody", "", "paused check credentials_file"},
		{"no token in the file", broken, "paused broken\": nkeys: no nkey seed"},
		{"no file", filepath.Join(o.dir, "none"), "transient none: no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := destination(server.URL(), "events.{{.sort}}")
			d.NATS.CredentialsFile = tc.file
			errs := publish(t, build(t, d, slog.New(slog.DiscardHandler)), backendtest.Message(0))
			wantErrors(t, errs, tc.want)
			if errs[0] != nil && strings.Contains(errs[0].Error(), "hunter2") {
				t.Errorf("the file is shown: %v", errs[0])
			}
		})
	}

	// A file that is replaced is read for the next connection.
	d := destination(server.URL(), "events.{{.sort}}")
	d.NATS.CredentialsFile = o.credentials("renewed", strangers, nil)
	b := build(t, d, slog.New(slog.DiscardHandler))
	wantErrors(t, publish(t, b, backendtest.Message(1)), "paused check credentials_file")
	o.credentials("renewed", keys, nil)
	wantErrors(t, publish(t, b, backendtest.Message(1)), "")
	backendtest.WantFindings(t, b.Probe(t.Context()), nil, "OK connected to NATS", "OK recognises repeated ones")
}
