package notify_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
)

const key128 = "AAECAwQFBgcICQoLDA0ODw=="

// TestSealFits: the message is cut, between characters, so that the client can take it all.
func TestSealFits(t *testing.T) {
	long := notify.Private{Unread: 3, Sender: "alice@example.org", Type: "groupchat", Message: strings.Repeat("ü\n", 3000), Nickname: "Al"}
	huge := long
	huge.Nickname, huge.Message = strings.Repeat("n", 5000), "hi"
	for name, c := range map[string]struct {
		limit, most int
		plain, want notify.Private
	}{
		"default":        {0, 3000, long, long},
		"least":          {notify.MinSealed, notify.MinSealed, long, long},
		"most":           {notify.MaxSealed, notify.MaxSealed, long, long},
		"without a text": {notify.MinSealed, notify.MinSealed, huge, notify.Private{Unread: 3, Type: "groupchat"}},
		"short":          {0, 3000, notify.Private{Unread: 1, Type: "chat", Message: "hi"}, notify.Private{Unread: 1, Type: "chat", Message: "hi"}},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := notify.ParseKey(key128)
			if err != nil {
				t.Fatal(err)
			}
			e := notify.Encryption{Key: key, MaxSize: c.limit}
			got, err := e.Seal(c.plain)
			if err != nil {
				t.Fatal(err)
			}
			if checked, err := got.Checked(); err != nil || checked != got || len(got.Data) > c.most {
				t.Errorf("%d bytes, %v", len(got.Data), err)
			}
			again, err := e.Seal(c.plain)
			if err != nil || again.IV == got.IV || again.Data == got.Data {
				t.Errorf("the same nonce twice, %v", err)
			}
			var told notify.Private
			if err := json.Unmarshal([]byte(pushtest.Unseal(t, key128, got.IV, got.Data)), &told); err != nil {
				t.Fatal(err)
			}
			if c.want.Message == long.Message {
				if len(told.Message) < c.most/4 || !strings.HasPrefix(long.Message, strings.TrimSuffix(told.Message, "…")) || len(got.Data) < c.most*9/10 {
					t.Errorf("%d bytes of %d, with a message of %d", len(got.Data), c.most, len(told.Message))
				}
				told.Message = c.want.Message
			}
			if diff := cmp.Diff(c.want, told); diff != "" {
				t.Error(diff)
			}
		})
	}
}
