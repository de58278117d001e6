package fcm

import (
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
	// maxCollapseKey bounds a key of ours.
	maxCollapseKey = 43
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
	}
	apns struct {
		Headers map[string]string `json:"headers"`
		Payload struct {
			APS aps `json:"aps"`
		} `json:"payload"`
	}
	aps struct {
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
			Priority: "NORMAL", CollapseKey: n.CollapseKey(maxCollapseKey),
			TTL: strconv.FormatInt(int64(min(left, maxTTL)/time.Second), 10) + "s",
		},
		APNs: &apns{Headers: map[string]string{"apns-priority": "5", "apns-expiration": "0"}},
	}
	if left > 0 {
		m.APNs.Headers["apns-expiration"] = strconv.FormatInt(at.Unix(), 10)
	}
	if n.Priority == notify.High && !n.Silent {
		m.Android.Priority = "HIGH"
	}
	if asData {
		// Apple wakes an application for data at low priority only.
		m.APNs.Headers["apns-push-type"] = "background"
		m.APNs.Payload.APS.ContentAvailable = 1
	} else {
		m.Notification = &shown{n.Title, n.Body}
		m.Android.Notification = &androidShown{n.Thread, s.channel, s.click, s.sound, n.MessageCount}
		m.APNs.Headers["apns-push-type"] = "alert"
		m.APNs.Payload.APS = aps{Badge: n.Badge, Sound: s.sound, ThreadID: n.Thread}
		if n.Priority == notify.High {
			m.APNs.Headers["apns-priority"] = "10"
		}
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
