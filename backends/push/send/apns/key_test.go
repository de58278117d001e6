package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"eventpusher/config"
)

const testKeyID, testTeamID = "ABC123DEFG", "DEF123GHIJ"

// newPrivateKey returns a key as Apple hands it out.
func newPrivateKey(t testing.TB) (*ecdsa.PrivateKey, config.Secret) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, encodeKey(t, key)
}

func encodeKey(t testing.TB, key any) config.Secret {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return config.Secret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// clock is a time that stands until it is moved.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func newTestKey(t testing.TB, p8 config.Secret, c *clock) *Key {
	t.Helper()
	k, err := NewKey(testKeyID, testTeamID, p8)
	if err != nil {
		t.Fatal(err)
	}
	k.now = c.now
	return k
}

func issuedAt(t *testing.T, token string) time.Time {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Iat int64 }
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return time.Unix(claims.Iat, 0)
}

func current(t *testing.T, k *Key) string {
	t.Helper()
	token, err := k.current()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestKeyRenews walks a day in steps of a minute from every minute of a window.
func TestKeyRenews(t *testing.T) {
	_, p8 := newPrivateKey(t)
	midnight := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for first := 0; first <= 30; first += 5 {
		c := &clock{midnight.Add(time.Duration(first)*time.Minute - time.Second)}
		k := newTestKey(t, p8, c)
		token, since, renewals := current(t, k), c.Time, 0
		for range 24 * 60 {
			c.Time = c.Add(time.Minute)
			next := current(t, k)
			if next != token {
				if held := c.Sub(since); held < 20*time.Minute {
					t.Fatalf("started at minute %d: another token after %v", first, held)
				}
				token, since, renewals = next, c.Time, renewals+1
			}
			if age := c.Sub(issuedAt(t, token)); age < 0 || age > 55*time.Minute {
				t.Fatalf("started at minute %d: a token of age %v", first, age)
			}
		}
		if renewals < 47 || renewals > 49 {
			t.Errorf("started at minute %d: %d renewals in a day", first, renewals)
		}
	}
}

func TestKeysOfSeveralProcessesAgree(t *testing.T) {
	_, p8 := newPrivateKey(t)
	c := &clock{time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC)}
	token := current(t, newTestKey(t, p8, c))
	c.Time = c.Add(28 * time.Minute)
	if again := current(t, newTestKey(t, p8, c)); again != token {
		t.Errorf("after a restart within the half hour the token is\n%s\nand was\n%s", again, token)
	}
}

func TestKeyAfterTheClockWasSet(t *testing.T) {
	_, p8 := newPrivateKey(t)
	noon := time.Date(2026, 11, 22, 12, 10, 0, 0, time.UTC)
	for name, to := range map[string]time.Time{"back": noon.Add(-3 * time.Hour), "forth": noon.Add(3 * time.Hour)} {
		t.Run(name, func(t *testing.T) {
			c := &clock{noon}
			k := newTestKey(t, p8, c)
			token := current(t, k)
			c.Time = to
			next := current(t, k)
			if age := to.Sub(issuedAt(t, next)); next == token || age < 0 || age > window {
				t.Errorf("the token has the age %v", age)
			}
		})
	}
}

func TestKeyAfterExpiry(t *testing.T) {
	_, p8 := newPrivateKey(t)
	c := &clock{time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC)}
	k := newTestKey(t, p8, c)
	old := current(t, k)
	if _, err := k.afterExpiry(old); !errors.Is(err, errTooYoung) {
		t.Errorf("%v for a token that is new, want %v", err, errTooYoung)
	}
	c.Time = c.Add(20 * time.Minute)
	renewed, err := k.afterExpiry(old)
	if err != nil || renewed == old || !issuedAt(t, renewed).Equal(c.Time) {
		t.Fatalf("%v, issued %v, want another of now", err, issuedAt(t, renewed))
	}
	// Who comes later with the old one gets the same, and no further one is made.
	if again, err := k.afterExpiry(old); err != nil || again != renewed {
		t.Errorf("%v, another token", err)
	}
	c.Time = c.Add(19 * time.Minute)
	if current(t, k) != renewed {
		t.Error("replaced after less than 20 minutes")
	}
	c.Time = c.Add(time.Minute)
	if current(t, k) == renewed {
		t.Error("not replaced although due")
	}
}

func TestNewKeyRefuses(t *testing.T) {
	_, p8 := newPrivateKey(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		id, team string
		p8       config.Secret
		want     string
	}{
		"no key id":      {"", testTeamID, p8, "key id"},
		"short key id":   {"ABC", testTeamID, p8, "key id"},
		"small team id":  {testKeyID, "def123ghij", p8, "team id"},
		"no key":         {testKeyID, testTeamID, "", ".p8"},
		"a path":         {testKeyID, testTeamID, "/etc/AuthKey.p8", ".p8"},
		"another curve":  {testKeyID, testTeamID, encodeKey(t, p384), "P-256"},
		"damaged":        {testKeyID, testTeamID, config.Secret(strings.Replace(string(p8), "M", "A", 1)), "damaged"},
		"a certificate?": {testKeyID, testTeamID, config.Secret(strings.ReplaceAll(string(p8), "PRIVATE KEY", "CERTIFICATE")), ".p8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewKey(tc.id, tc.team, tc.p8)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want one about %s", err, tc.want)
			}
		})
	}
}
