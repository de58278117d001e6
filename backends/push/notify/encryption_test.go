package notify

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/internal/provider"
)

// vectors were made by OpenSSL (Node's crypto) and by Python's cryptography: the key is the
// bytes 0 to 15, the nonce 100 to 111.
var vectors = []struct {
	plain  Private
	sealed string
}{
	{
		Private{Unread: 1, Sender: "juliet@capulet.example", Type: "chat", Message: "Wherefore art thou, Romeo?"},
		"YUA7y6ln2Z65BGY8pLlOglTtCt2oi7cvmAbU4/yRloPPkDdQpX1f8OcoSyOvrmZzou14UackIkCi+iNx7vMAExf7dWiOjbDdT8JMt1SEQxf201BulJFQ608wZfmKMvM1XWscBSbYJvsbDO9uGcgM6ilXAw==",
	},
	{
		Private{Unread: 2, Sender: "a@b/<c>", Type: "call", SID: "s1", Media: []string{}},
		"YUA7y6ln2Z65BGU8pLlOglTtCt2oi7walkCN9ILQ29HOhSJBqSIF8us0S2ShoDduv78nUe43YwTh42Q5pf9HWj/Hb+znXWAy1SHv42UpNIcOHt8=",
	},
}

const vectorKey = "AAECAwQFBgcICQoLDA0ODw=="

func TestSealVectors(t *testing.T) {
	key, err := ParseKey(" AAECAwQFBgcI\n CQoLDA0ODw== ")
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, nonceSize)
	for i := range nonce {
		nonce[i] = byte(100 + i)
	}
	for _, v := range vectors {
		plain, err := provider.JSON(&v.plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := seal(key, nonce, plain)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v.sealed, base64.StdEncoding.EncodeToString(got)); diff != "" {
			t.Errorf("%s: %s", plain, diff)
		}
	}
}

func TestKey(t *testing.T) {
	key, err := ParseKey(vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%s", "%x", "%#v", "%q", "%d"} {
		if got := fmt.Sprintf(format, key); got != "***" {
			t.Errorf("%s shows %s", format, got)
		}
		if got := fmt.Sprintf(format, &Encryption{Key: key}); strings.Contains(got, "1") || strings.Contains(got, "AAEC") {
			t.Errorf("%s shows %s", format, got)
		}
	}
	for _, wrong := range []string{"", "AAEC", vectorKey + "AAEC", "no base64!", vectorKey[:20] + "AAECAwQF"} {
		if _, err := ParseKey(wrong); err == nil || wrong != "" && strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestChecked(t *testing.T) {
	data := base64.StdEncoding.EncodeToString(make([]byte, 20))
	spaced, err := (&Encrypted{IV: " AAECAwQFBgcI CQoL\n", Data: "\n " + data[:7] + "\n" + data[7:] + "\n", Type: "voip"}).Checked()
	if err != nil || spaced != (Encrypted{IV: "AAECAwQFBgcICQoL", Data: data, Type: "voip"}) {
		t.Errorf("%+v, %v", spaced, err)
	}
	for name, wrong := range map[string]Encrypted{
		"no nonce":      {Data: data},
		"a short nonce": {IV: "AAECAwQFBgc=", Data: data},
		"no data":       {IV: "AAECAwQFBgcICQoL"},
		"less than tag": {IV: "AAECAwQFBgcICQoL", Data: base64.StdEncoding.EncodeToString(make([]byte, tagSize-1))},
		"no base64":     {IV: "AAECAwQFBgcICQoL", Data: "<" + data},
		"too large":     {IV: "AAECAwQFBgcICQoL", Data: strings.Repeat("A", MaxSealed+4)},
	} {
		if got, err := wrong.Checked(); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
