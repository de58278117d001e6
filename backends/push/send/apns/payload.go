package apns

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

// The sizes of payloads that Apple takes, in bytes.
const (
	maxPayload     = 4096
	maxVoIPPayload = 5120
)

// maxCollapseKey is how long a key of ours gets; Apple takes 64 bytes.
const maxCollapseKey = 43

// The values of apns-push-type that are sent.
const (
	typeAlert      = "alert"
	typeBackground = "background"
	typeVoIP       = "voip"
)

var errNothing = errors.New("nothing to show: neither title nor body nor badge")

type aps struct {
	Alert            *alert `json:"alert,omitempty"`
	Badge            *int   `json:"badge,omitempty"`
	Sound            string `json:"sound,omitempty"`
	ThreadID         string `json:"thread-id,omitempty"`
	Category         string `json:"category,omitempty"`
	Interruption     string `json:"interruption-level,omitempty"`
	MutableContent   int    `json:"mutable-content,omitempty"`
	ContentAvailable int    `json:"content-available,omitempty"`
}

type alert struct {
	Title       string `json:"title,omitempty"`
	TitleLocKey string `json:"title-loc-key,omitempty"`
	Body        string `json:"body,omitempty"`
	LocKey      string `json:"loc-key,omitempty"`
}

// newAlert returns the texts. The application translates those that say nothing of a
// message, if it has them.
func newAlert(n *notify.Notification, locKey string) *alert {
	a := &alert{Title: n.Title, Body: n.Body}
	if locKey == "" {
		return a
	}
	if a.Title == notify.GenericBody {
		a.Title, a.TitleLocKey = "", locKey
	}
	if a.Body == notify.GenericBody {
		a.Body, a.LocKey = "", locKey
	}
	return a
}

// payload encodes n: what is shown under aps, the rest as keys beside it. A silent
// notification and a call carry everything beside aps, which for a silent one may
// hold nothing that the user would notice.
func (s *Sender) payload(n *notify.Notification, pushType string) ([]byte, error) {
	shown := aps{}
	fields := n.Summary()
	switch pushType {
	case typeBackground:
		shown.ContentAvailable = 1
	case typeAlert:
		if n.Title == "" && n.Body == "" && n.Badge == nil {
			return nil, errNothing
		}
		shown = aps{Badge: n.Badge, ThreadID: n.Thread}
		if n.Title != "" || n.Body != "" {
			shown.Alert, shown.Sound, shown.Category, shown.Interruption = newAlert(n, s.locKey), s.sound, s.category, s.level
			if s.mutable || n.Sealed {
				shown.MutableContent = 1
			}
		}
		for _, key := range [...]string{notify.KeyTitle, notify.KeyBody, notify.KeyThread, notify.KeyBadge} {
			if _, own := n.Data[key]; !own {
				delete(fields, key)
			}
		}
	}
	if _, taken := fields["aps"]; taken {
		return nil, errors.New("data must have no key aps, which is Apple's")
	}
	all := make(map[string]any, len(fields)+1)
	for key, value := range fields {
		all[key] = value
	}
	all["aps"] = shown
	return provider.JSON(all)
}

// uuid returns an event's id in the form of an apns-id: the ids of events that have
// 128 bits as they are, others by their digest, as version 8 of RFC 9562.
func uuid(id string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(b) != 16 {
		digest := sha256.Sum256([]byte(id))
		b = digest[:16]
		b[6] = b[6]&0x0f | 0x80
		b[8] = b[8]&0x3f | 0x80
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
