package fcm

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

const (
	// maxMessage is FCM's limit for the payload. All of the message but the token is
	// counted here, since what counts as payload is not said.
	maxMessage = 4096
	// maxTTL is four weeks, the longest that FCM keeps a message.
	maxTTL = 28 * 24 * time.Hour
	// collapseKeys is how many keys FCM tells apart for a device. It drops messages of more.
	collapseKeys = 4
)

// The fields of the v1 API (projects.messages) that are sent.
type (
	message struct {
		Token        string            `json:"token,omitempty"`
		Data         map[string]string `json:"data,omitempty"`
		Notification *shown            `json:"notification,omitempty"`
		Android      *android          `json:"android"`
		APNs         *apns             `json:"apns"`
	}
	shown struct {
		Title string `json:"title,omitempty"`
		Body  string `json:"body,omitempty"`
	}
	android struct {
		CollapseKey  string        `json:"collapse_key,omitempty"`
		Priority     string        `json:"priority"`
		TTL          string        `json:"ttl"`
		Notification *androidShown `json:"notification,omitempty"`
	}
	androidShown struct {
		Tag         string `json:"tag,omitempty"`
		ChannelID   string `json:"channel_id,omitempty"`
		ClickAction string `json:"click_action,omitempty"`
		Sound       string `json:"sound,omitempty"`
		Count       int    `json:"notification_count,omitempty"`
		TitleLocKey string `json:"title_loc_key,omitempty"`
		BodyLocKey  string `json:"body_loc_key,omitempty"`
	}
	apns struct {
		Headers map[string]string `json:"headers"`
		Payload struct {
			APS aps `json:"aps"`
		} `json:"payload"`
	}
	alert struct {
		Title       string `json:"title,omitempty"`
		TitleLocKey string `json:"title-loc-key,omitempty"`
		Body        string `json:"body,omitempty"`
		LocKey      string `json:"loc-key,omitempty"`
	}
	aps struct {
		Alert            *alert `json:"alert,omitempty"`
		Badge            *int   `json:"badge,omitempty"`
		Sound            string `json:"sound,omitempty"`
		ThreadID         string `json:"thread-id,omitempty"`
		ContentAvailable int    `json:"content-available,omitempty"`
		MutableContent   int    `json:"mutable-content,omitempty"`
	}
)

// message builds what is sent for n, without the token: a data message, which the
// application shows or not, or one that Android shows by itself.
func (s *Sender) message(n *notify.Notification, left time.Duration, at time.Time) (*message, error) {
	asData := s.dataOnly || n.Silent
	m := &message{
		Data: n.Summary(),
		Android: &android{
			Priority: "NORMAL",
			TTL:      strconv.FormatInt(int64(min(left, maxTTL)/time.Second), 10) + "s",
		},
		APNs: &apns{Headers: map[string]string{"apns-priority": "5", "apns-expiration": "0"}},
	}
	if left > 0 {
		m.APNs.Headers["apns-expiration"] = strconv.FormatInt(at.Unix(), 10)
	}
	if n.Priority == notify.High && !n.Silent {
		m.Android.Priority = "HIGH"
	}
	switch {
	case n.Sealed:
		// Android leaves to the application what has no notification; on iOS an extension of
		// the application changes what would be shown.
		m.APNs.Headers["apns-push-type"], m.APNs.Headers["apns-priority"] = "alert", "10"
		m.APNs.Payload.APS = aps{Alert: newAlert(n.Title, n.Body, s.locKey), Sound: s.sound, MutableContent: 1}
	case asData:
		// Apple wakes an application for data at low priority only.
		m.APNs.Headers["apns-push-type"] = "background"
		m.APNs.Payload.APS.ContentAvailable = 1
		m.Android.CollapseKey = collapseKey(n)
	default:
		// FCM collapses what it shows by itself, and looks at no key.
		m.Notification = &shown{n.Title, n.Body}
		m.Android.Notification = &androidShown{Tag: n.Thread, ChannelID: s.channel, ClickAction: s.click, Sound: s.sound, Count: n.MessageCount}
		m.APNs.Headers["apns-push-type"] = "alert"
		m.APNs.Payload.APS = aps{Badge: n.Badge, Sound: s.sound, ThreadID: n.Thread}
		if n.Priority == notify.High {
			m.APNs.Headers["apns-priority"] = "10"
		}
		m.translate(s.locKey)
		for _, key := range [...]string{notify.KeyTitle, notify.KeyBody} {
			if _, own := n.Data[key]; !own {
				delete(m.Data, key)
			}
		}
	}
	for key := range n.Data {
		if reserved(key) {
			return nil, fmt.Errorf("data must have no key %q, which is FCM's", key)
		}
	}
	return m, nil
}

// collapseKey returns one of collapseKeys keys, empty if the notification replaces no other.
func collapseKey(n *notify.Notification) string {
	if n.CollapseID == "" {
		return ""
	}
	digest := sha256.Sum256([]byte(n.CollapseID))
	return strconv.Itoa(int(digest[0]) % collapseKeys)
}

// translate lets the application put its own texts in place of those that say nothing of a
// message. An empty key leaves them.
func (m *message) translate(key string) {
	if key == "" || m.Notification.Title != notify.GenericBody && m.Notification.Body != notify.GenericBody {
		return
	}
	a := newAlert(m.Notification.Title, m.Notification.Body, key)
	m.Android.Notification.TitleLocKey, m.Android.Notification.BodyLocKey = a.TitleLocKey, a.LocKey
	m.APNs.Payload.APS.Alert = a
}

// newAlert returns the texts for Apple's devices, with key in place of those that say nothing
// of a message.
func newAlert(title, body, key string) *alert {
	a := &alert{Title: title, Body: body}
	if key != "" && a.Title == notify.GenericBody {
		a.Title, a.TitleLocKey = "", key
	}
	if key != "" && a.Body == notify.GenericBody {
		a.Body, a.LocKey = "", key
	}
	return a
}

// reserved reports whether FCM keeps a key of data to itself; it refuses the whole
// message then.
func reserved(key string) bool {
	return key == "" || key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}

// encode returns the request for token.
func (m *message) encode(token string) ([]byte, error) {
	m.Token = token
	return provider.JSON(struct {
		Message *message `json:"message"`
	}{m})
}
