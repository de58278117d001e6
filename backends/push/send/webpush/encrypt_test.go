package webpush

import (
	"crypto/ecdh"
	"encoding/base64"
	"testing"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The subscription of RFC 8291 appendix A.
const (
	exampleP256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	exampleAuth   = "BTBZMqHH6r4Tts7J_aSIgg"
)

// TestExampleOfTheRFC seals the message of RFC 8291 section 5 by the keys of its
// appendix A.
func TestExampleOfTheRFC(t *testing.T) {
	const want = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml" +
		"mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT" +
		"pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
	to, err := parseReceiver(&notify.Target{P256DH: exampleP256DH, Auth: exampleAuth})
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := ecdh.P256().NewPrivateKey(unbase64(t, "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := to.seal([]byte("When I grow up, I want to be a watermelon"), 0, ephemeral, unbase64(t, "DGv6ra1nlYgDCS1FRnbzlw"))
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.RawURLEncoding.EncodeToString(body); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestParseReceiver(t *testing.T) {
	const std = "BCVxsr7N/eNgVRqvHtD0zTZsEc6+VV+JvLexhqUzORcxaOzi6+AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4="
	for name, tc := range map[string]struct {
		p256dh string
		auth   config.Secret
		good   bool
	}{
		"base64url":           {exampleP256DH, exampleAuth, true},
		"padded plain base64": {std, exampleAuth + "==", true},
		"no keys":             {"", "", false},
		"no auth":             {exampleP256DH, "", false},
		"short auth":          {exampleP256DH, "BTBZMqHH6r4Tts7J_aSI", false},
		"compressed point":    {"AyVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcx", exampleAuth, false},
		"not on the curve":    {exampleP256DH[:85] + "5", exampleAuth, false},
		"not base64":          {"%" + exampleP256DH[1:], exampleAuth, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseReceiver(&notify.Target{P256DH: tc.p256dh, Auth: tc.auth})
			if (err == nil) != tc.good {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestPadding(t *testing.T) {
	for _, tc := range []struct{ size, block, want int }{
		{0, 256, 0}, {1, 256, 255}, {256, 256, 0}, {257, 256, 255}, {300, 1, 0},
		{maxPlaintext, 256, 0}, {maxPlaintext - 10, 256, 10}, {1, maxPlaintext, maxPlaintext - 1},
	} {
		if got := padding(tc.size, tc.block); got != tc.want {
			t.Errorf("padding(%d, %d) = %d, want %d", tc.size, tc.block, got, tc.want)
		}
	}
}

func FuzzParseReceiver(f *testing.F) {
	f.Add(exampleP256DH, exampleAuth)
	f.Add("BA", "==")
	f.Fuzz(func(t *testing.T, p256dh, auth string) {
		to, err := parseReceiver(&notify.Target{P256DH: p256dh, Auth: config.Secret(auth)})
		if err != nil {
			return
		}
		if body, err := to.encrypt([]byte("x"), 5); err != nil || len(body) != headerSize+1+1+5+16 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	})
}
